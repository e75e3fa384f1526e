//! H.245: opening logical channels, and the answers. Its other messages are not read.

use super::media::{DATA_TYPE, NON_STANDARD};
use super::*;

static IP: Sequence =
    extensible(&[must(Kind::Octets(4)).noted(Mark::V4), must(WORD)], NOT_EXTENDED);
static IP6: Sequence =
    extensible(&[must(Kind::Octets(16)).noted(Mark::V6), must(WORD)], NOT_EXTENDED);
static IPX: Sequence =
    extensible(&[must(Kind::Octets(6)), must(Kind::Octets(4)), must(Kind::Bits(16))], NOT_EXTENDED);
static STRICTNESS: Choice = one_of_just(&[NULL, NULL]);
static HOP: Field = must(Kind::Octets(4));
static SOURCE_ROUTE: Sequence = extensible(
    &[must(Kind::Choice(&STRICTNESS)), must(Kind::Octets(4)), must(WORD), must(list(&HOP))],
    NOT_EXTENDED,
);
static UNICAST: Choice = one_of(
    &[
        must(Kind::Sequence(&IP)).noted(Mark::Inside),
        must(Kind::Sequence(&IPX)),
        must(Kind::Sequence(&IP6)).noted(Mark::Inside),
        must(Kind::Octets(16)),
        must(Kind::Sequence(&SOURCE_ROUTE)),
    ],
    more(2),
);
static MULTICAST: Choice =
    one_of(&[must(Kind::Sequence(&IP)), must(Kind::Sequence(&IP6))], more(2));
static TRANSPORT_ADDRESS: Choice = one_of(
    &[must(Kind::Choice(&UNICAST)).noted(Mark::Inside), must(Kind::Choice(&MULTICAST))],
    NOT_EXTENDED,
);
const ADDRESS: Kind = Kind::Choice(&TRANSPORT_ADDRESS);

static ONE_NON_STANDARD: Field = must(Kind::Sequence(&NON_STANDARD));
/// H2250LogicalChannelParameters.
static H2250: Sequence = cut(
    10,
    &[
        may(list(&ONE_NON_STANDARD)),
        must(BYTE),
        may(Kind::Bits(8)),
        may(ADDRESS).noted(Mark::Media),
        may(FLAG),
        may(ADDRESS).noted(Mark::Control),
        STOP,
    ],
);
static H2250_ACK: Sequence = extensible(
    &[
        may(list(&ONE_NON_STANDARD)),
        may(Kind::Bits(8)),
        may(ADDRESS).noted(Mark::Media),
        may(ADDRESS).noted(Mark::Control),
        may(Kind::Bits(5)),
    ],
    more(2),
);

static H222: Sequence =
    extensible(&[must(WORD), must(WORD), may(WORD), may(OCTETS), may(OCTETS)], NOT_EXTENDED);
static AL3: Sequence = plain(&[must(Kind::Bits(2)), must(Kind::Long)]);
static ADAPTATION: Choice = one_of(
    &[must(Kind::Sequence(&NON_STANDARD)), NULL, NULL, NULL, NULL, must(Kind::Sequence(&AL3))],
    more(3),
);
static H223: Sequence = extensible(&[must(Kind::Choice(&ADAPTATION)), must(FLAG)], NOT_EXTENDED);
/// A choice of three values: checksum lengths, ways to suspend and to recover.
static ONE_OF_THREE: Choice = one_of(&[NULL, NULL, NULL], NOT_EXTENDED);
const THREE: Field = must(Kind::Choice(&ONE_OF_THREE));
static HDLC: Sequence = extensible(&[THREE, must(WORD), must(FLAG)], NOT_EXTENDED);
static RECOVERS: Sequence = extensible(&[must(Kind::Bits(7)), THREE], NOT_EXTENDED);
static V76_MODE: Choice = one_of(&[must(Kind::Sequence(&RECOVERS)), NULL], NOT_EXTENDED);
static V75: Sequence = extensible(&[must(FLAG)], NOT_EXTENDED);
static V76: Sequence = extensible(
    &[
        must(Kind::Sequence(&HDLC)),
        THREE,
        must(FLAG),
        must(Kind::Choice(&V76_MODE)),
        must(Kind::Sequence(&V75)),
    ],
    NOT_EXTENDED,
);
const FOLLOWED: Field = must(Kind::Sequence(&H2250)).noted(Mark::Inside);

static FORWARD_MULTIPLEX: Choice = one_of(
    &[must(Kind::Sequence(&H222)), must(Kind::Sequence(&H223)), must(Kind::Sequence(&V76))],
    Added { known: 2, read: &[(0, FOLLOWED)] },
);
static REVERSE_MULTIPLEX: Choice = one_of(
    &[must(Kind::Sequence(&H223)), must(Kind::Sequence(&V76))],
    Added { known: 1, read: &[(0, FOLLOWED)] },
);
static FORWARD: Sequence = extensible(
    &[
        may(WORD),
        must(Kind::Choice(&DATA_TYPE)).noted(Mark::Inside),
        must(Kind::Choice(&FORWARD_MULTIPLEX)).noted(Mark::First),
    ],
    more(2),
);
static REVERSE: Sequence = extensible(
    &[must(Kind::Choice(&DATA_TYPE)), may(Kind::Choice(&REVERSE_MULTIPLEX)).noted(Mark::Second)],
    more(2),
);

static DISTRIBUTION: Choice = one_of(&[NULL, NULL], NOT_EXTENDED);
static Q2931_NUMBER: Choice = one_of(&[must(run(Count::Bits(4), 1, 4)), must(NSAP)], NOT_EXTENDED);
static Q2931: Sequence = extensible(&[must(Kind::Choice(&Q2931_NUMBER)), may(NSAP)], NOT_EXTENDED);
static NETWORK_ADDRESS: Choice = one_of(
    &[must(Kind::Sequence(&Q2931)), must(DIGITS), must(ADDRESS).noted(Mark::Stack)],
    NOT_EXTENDED,
);
/// NetworkAccessParameters.
static ACCESS: Sequence = extensible(
    &[
        may(Kind::Choice(&DISTRIBUTION)),
        must(Kind::Choice(&NETWORK_ADDRESS)).noted(Mark::Inside),
        must(FLAG),
        may(run(Count::Bits(8), 1, 8)),
    ],
    more(1),
);
const STACK: Field = must(Kind::Sequence(&ACCESS)).noted(Mark::Inside);

/// OpenLogicalChannel.
pub(super) static OPEN_CHANNEL: Sequence = extensible(
    &[
        must(WORD),
        must(Kind::Sequence(&FORWARD)).noted(Mark::Inside),
        may(Kind::Sequence(&REVERSE)).noted(Mark::Inside),
    ],
    Added { known: 2, read: &[(0, STACK), (1, STOP)] },
);

static ACK_REVERSE_MULTIPLEX: Choice =
    one_of(&[must(Kind::Sequence(&H222))], Added { known: 1, read: &[(0, FOLLOWED)] });
static ACK_REVERSE: Sequence = extensible(
    &[must(WORD), may(WORD), may(Kind::Choice(&ACK_REVERSE_MULTIPLEX)).noted(Mark::First)],
    more(1),
);
static ACK_FORWARD: Choice =
    one_of(&[must(Kind::Sequence(&H2250_ACK)).noted(Mark::Inside)], NOT_EXTENDED);
/// OpenLogicalChannelAck.
static OPEN_CHANNEL_ACK: Sequence = extensible(
    &[must(WORD), may(Kind::Sequence(&ACK_REVERSE)).noted(Mark::Inside)],
    Added {
        known: 3,
        read: &[(0, STACK), (1, must(Kind::Choice(&ACK_FORWARD)).noted(Mark::Second)), (2, STOP)],
    },
);

static REQUESTS: [Field; 11] = {
    let mut all = [STOP; 11];
    all[3] = must(Kind::Sequence(&OPEN_CHANNEL)).noted(Mark::Open);
    all
};
static REQUEST: Choice =
    one_of(&REQUESTS, Added { known: 4, read: &[(0, STOP), (1, STOP), (2, STOP), (3, STOP)] });
static RESPONSES: [Field; 19] = {
    let mut all = [STOP; 19];
    all[5] = must(Kind::Sequence(&OPEN_CHANNEL_ACK)).noted(Mark::Acknowledge);
    all
};
static RESPONSE: Choice = one_of(
    &RESPONSES,
    Added { known: 5, read: &[(0, STOP), (1, STOP), (2, STOP), (3, STOP), (4, STOP)] },
);
/// MultimediaSystemControlMessage.
pub(super) static CONTROL_MESSAGE: Choice = one_of(
    &[
        must(Kind::Choice(&REQUEST)).noted(Mark::Inside),
        must(Kind::Choice(&RESPONSE)).noted(Mark::Inside),
        STOP,
        STOP,
    ],
    NOT_EXTENDED,
);

/// A message of H.245.
pub(crate) static CONTROL: Field = must(Kind::Choice(&CONTROL_MESSAGE)).noted(Mark::Inside);
