//! H.245: what a logical channel carries. Of all this, only whether it is T.120 over
//! a LAN of its own matters; the rest is there to be skipped.

use super::*;

static H221_NON_STANDARD: Sequence = plain(&[must(BYTE), must(BYTE), must(WORD)]);
static NON_STANDARD_IDENTIFIER: Choice =
    one_of_just(&[must(OBJECT), must(Kind::Sequence(&H221_NON_STANDARD))]);
pub(super) static NON_STANDARD: Sequence =
    plain(&[must(Kind::Choice(&NON_STANDARD_IDENTIFIER)), must(OCTETS)]);
const NON_STANDARD_DATA: Field = must(Kind::Sequence(&NON_STANDARD));

static H261: Sequence = extensible(
    &[may(Kind::Bits(2)), may(Kind::Bits(2)), must(FLAG), must(WORD), must(FLAG)],
    more(1),
);
/// What H.262 and IS 11172 say of rates and sizes.
const LONG: Field = may(Kind::Long);
static H262: Sequence = extensible(
    &[must(Kind::Bits(11)), LONG, LONG, may(WORD), may(WORD), may(Kind::Bits(4)), LONG],
    more(1),
);
static H263: Sequence = extensible(
    &[
        may(Kind::Bits(5)),
        may(Kind::Bits(5)),
        may(Kind::Bits(5)),
        may(Kind::Bits(5)),
        may(Kind::Bits(5)),
        must(Kind::Long),
        must(Kind::Bits(5)),
        LONG,
        may(WORD),
    ],
    more(8),
);
static IS11172_VIDEO: Sequence =
    extensible(&[must(FLAG), LONG, LONG, may(WORD), may(WORD), may(Kind::Bits(4)), LONG], more(1));
static VIDEO: Choice = one_of(
    &[
        NON_STANDARD_DATA,
        must(Kind::Sequence(&H261)),
        must(Kind::Sequence(&H262)),
        must(Kind::Sequence(&H263)),
        must(Kind::Sequence(&IS11172_VIDEO)),
    ],
    more(1),
);

static G7231: Sequence = plain(&[must(BYTE), must(FLAG)]);
static IS11172_AUDIO: Sequence = extensible(&[must(Kind::Bits(8)), must(WORD)], NOT_EXTENDED);
static IS13818_AUDIO: Sequence = extensible(&[must(Kind::Bits(20)), must(WORD)], NOT_EXTENDED);
/// Frames in a packet.
const FRAMES: Field = must(BYTE);
static AUDIO: Choice = one_of(
    &[
        NON_STANDARD_DATA,
        FRAMES,
        FRAMES,
        FRAMES,
        FRAMES,
        FRAMES,
        FRAMES,
        FRAMES,
        must(Kind::Sequence(&G7231)),
        FRAMES,
        FRAMES,
        FRAMES,
        must(Kind::Sequence(&IS11172_AUDIO)),
        must(Kind::Sequence(&IS13818_AUDIO)),
    ],
    more(8),
);

static DATA_PROTOCOL: Choice =
    one_of(&[NON_STANDARD_DATA, NULL, NULL, NULL, NULL, NULL, NULL], more(7));
const PROTOCOL: Field = must(Kind::Choice(&DATA_PROTOCOL));
static T84_RESTRICTED: Sequence = extensible(&[must(Kind::Bits(19))], NOT_EXTENDED);
static T84_PROFILE: Choice = one_of_just(&[NULL, must(Kind::Sequence(&T84_RESTRICTED))]);
static T84: Sequence = plain(&[PROTOCOL, must(Kind::Choice(&T84_PROFILE))]);
static NLPID: Sequence = plain(&[PROTOCOL, must(OCTETS)]);
static APPLICATION: Choice = one_of(
    &[
        NON_STANDARD_DATA,
        PROTOCOL.noted(Mark::Protocol),
        PROTOCOL,
        PROTOCOL,
        must(Kind::Sequence(&T84)),
        PROTOCOL,
        PROTOCOL,
        must(Kind::Sequence(&NLPID)),
        NULL,
        PROTOCOL,
    ],
    more(4),
);
static DATA: Sequence = extensible(
    &[must(Kind::Choice(&APPLICATION)).noted(Mark::Inside), must(Kind::Long)],
    NOT_EXTENDED,
);

static ENCRYPTION: Choice = one_of(&[NON_STANDARD_DATA, NULL], NOT_EXTENDED);

/// DataType.
pub(super) static DATA_TYPE: Choice = one_of(
    &[
        NON_STANDARD_DATA,
        NULL,
        must(Kind::Choice(&VIDEO)),
        must(Kind::Choice(&AUDIO)),
        must(Kind::Sequence(&DATA)).noted(Mark::Inside),
        must(Kind::Choice(&ENCRYPTION)),
    ],
    more(3),
);
