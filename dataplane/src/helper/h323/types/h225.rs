//! H.225.0: RAS messages, and the user information in Q.931 messages.

use super::h235::{CRYPTO_TOKEN, SECURITY, TOKEN};
use super::h245::{CONTROL_MESSAGE, OPEN_CHANNEL};
use super::*;
use crate::helper::h323::found::{FAST_START, TUNNELLED};

static H221_NON_STANDARD: Sequence =
    extensible(&[must(BYTE), must(BYTE), must(WORD)], NOT_EXTENDED);
static NON_STANDARD_IDENTIFIER: Choice =
    one_of(&[must(OBJECT), must(Kind::Sequence(&H221_NON_STANDARD))], NOT_EXTENDED);
pub(super) static NON_STANDARD: Sequence =
    plain(&[must(Kind::Choice(&NON_STANDARD_IDENTIFIER)), must(OCTETS)]);
const NON_STANDARD_DATA: Field = may(Kind::Sequence(&NON_STANDARD));

static IP: Sequence = plain(&[must(Kind::Octets(4)).noted(Mark::V4), must(WORD)]);
static IP6: Sequence =
    extensible(&[must(Kind::Octets(16)).noted(Mark::V6), must(WORD)], NOT_EXTENDED);
static IPX: Sequence = plain(&[must(Kind::Octets(6)), must(Kind::Octets(4)), must(Kind::Bits(16))]);
static HOP: Field = must(Kind::Octets(4));
static STRICTNESS: Choice = one_of(&[NULL, NULL], NOT_EXTENDED);
static SOURCE_ROUTE: Sequence = extensible(
    &[must(Kind::Octets(4)), must(WORD), must(list(&HOP)), must(Kind::Choice(&STRICTNESS))],
    NOT_EXTENDED,
);
static TRANSPORT_ADDRESS: Choice = one_of(
    &[
        must(Kind::Sequence(&IP)).noted(Mark::Inside),
        must(Kind::Sequence(&SOURCE_ROUTE)),
        must(Kind::Sequence(&IPX)),
        must(Kind::Sequence(&IP6)).noted(Mark::Inside),
        must(Kind::Octets(16)),
        must(NSAP),
        must(Kind::Sequence(&NON_STANDARD)),
    ],
    NOT_EXTENDED,
);
const ADDRESS: Kind = Kind::Choice(&TRANSPORT_ADDRESS);

pub(super) static ALIAS: Choice = one_of(&[must(DIGITS), must(run(Count::Byte, 1, 16))], more(5));
static ONE_ALIAS: Field = must(Kind::Choice(&ALIAS));
const ALIASES: Kind = list(&ONE_ALIAS);

static VENDOR: Sequence =
    extensible(&[must(Kind::Sequence(&H221_NON_STANDARD)), may(TEXT), may(TEXT)], NOT_EXTENDED);
/// GatekeeperInfo and TerminalInfo.
static NODE_INFO: Sequence = extensible(&[NON_STANDARD_DATA], NOT_EXTENDED);
static MCU_INFO: Sequence = extensible(&[NON_STANDARD_DATA], more(1));
/// What a gateway can do in each of the families of protocols.
static CAPS: Sequence = extensible(&[NON_STANDARD_DATA], more(2));
const CAP: Field = must(Kind::Sequence(&CAPS));
static PROTOCOL: Choice =
    one_of(&[must(Kind::Sequence(&NON_STANDARD)), CAP, CAP, CAP, CAP, CAP, CAP, CAP, CAP], more(2));
static ONE_PROTOCOL: Field = must(Kind::Choice(&PROTOCOL));
static GATEWAY_INFO: Sequence =
    extensible(&[may(list(&ONE_PROTOCOL)), NON_STANDARD_DATA], NOT_EXTENDED);
static ENDPOINT_TYPE: Sequence = extensible(
    &[
        NON_STANDARD_DATA,
        may(Kind::Sequence(&VENDOR)),
        may(Kind::Sequence(&NODE_INFO)),
        may(Kind::Sequence(&GATEWAY_INFO)),
        may(Kind::Sequence(&MCU_INFO)),
        may(Kind::Sequence(&NODE_INFO)),
        must(FLAG),
        must(FLAG),
    ],
    more(2),
);
const ENDPOINT: Field = must(Kind::Sequence(&ENDPOINT_TYPE));

static CALL_TYPE: Choice = one_of(&[NULL, NULL, NULL, NULL], NOT_EXTENDED);
static CALL_MODEL: Choice = one_of(&[NULL, NULL], NOT_EXTENDED);
static CONFERENCE_GOAL: Choice = one_of(&[NULL, NULL, NULL], more(2));
static Q954: Sequence = extensible(&[must(FLAG), must(FLAG)], NOT_EXTENDED);
static Q_SERIES: Sequence =
    extensible(&[must(Kind::Bits(7)), must(Kind::Sequence(&Q954))], NOT_EXTENDED);
static CALL_IDENTIFIER: Sequence = extensible(&[must(Kind::Octets(16))], NOT_EXTENDED);
static FACILITY_REASON: Choice = one_of(&[NULL, NULL, NULL, NULL], more(7));
static RELEASE_REASON: Choice = one_of(&[NULL; 12], more(10));
static REFERENCE: Field = must(WORD);

/// Bytes of a conference's identifier.
const CONFERENCE: Kind = Kind::Octets(16);
const H245_ADDRESS: Field = may(ADDRESS).noted(Mark::H245);

static FAST_CHANNEL: Field = must(Kind::Sequence(&OPEN_CHANNEL)).wrapped().noted(Mark::FastStart);
const FAST: Field = may(Kind::List { most: FAST_START, item: &FAST_CHANNEL }).noted(Mark::Inside);

static SETUP: Sequence = extensible(
    &[
        must(OBJECT),
        H245_ADDRESS,
        may(ALIASES),
        ENDPOINT,
        may(ALIASES),
        may(ADDRESS).noted(Mark::Destination),
        may(ALIASES),
        may(list(&REFERENCE)),
        must(FLAG),
        must(CONFERENCE),
        must(Kind::Choice(&CONFERENCE_GOAL)),
        may(Kind::Sequence(&Q_SERIES)),
        must(Kind::Choice(&CALL_TYPE)),
    ],
    Added { known: 26, read: &[(0, must(ADDRESS).noted(Mark::Source)), (6, FAST), (9, STOP)] },
);
const fn fast_start_fifth(known: u8) -> Added {
    Added { known, read: &[(4, FAST)] }
}
static CALL_PROCEEDING: Sequence =
    extensible(&[must(OBJECT), ENDPOINT, H245_ADDRESS], fast_start_fifth(9));
static CONNECT: Sequence =
    extensible(&[must(OBJECT), H245_ADDRESS, ENDPOINT, must(CONFERENCE)], fast_start_fifth(15));
static ALERTING: Sequence =
    extensible(&[must(OBJECT), ENDPOINT, H245_ADDRESS], fast_start_fifth(14));
static INFORMATION: Sequence = extensible(&[must(OBJECT)], more(6));
static RELEASE_COMPLETE: Sequence =
    extensible(&[must(OBJECT), may(Kind::Choice(&RELEASE_REASON))], more(9));
static FACILITY: Sequence = extensible(
    &[
        must(OBJECT),
        may(ADDRESS).noted(Mark::Alternative),
        may(ALIASES),
        may(CONFERENCE),
        must(Kind::Choice(&FACILITY_REASON)).noted(Mark::Reason),
    ],
    Added { known: 16, read: &[(6, H245_ADDRESS), (7, FAST)] },
);
static ONE_TOKEN: Field = must(Kind::Sequence(&TOKEN));
static ONE_CRYPTO_TOKEN: Field = must(Kind::Choice(&CRYPTO_TOKEN));
static PROGRESS: Sequence = extensible(
    &[
        must(OBJECT),
        ENDPOINT,
        H245_ADDRESS,
        must(Kind::Sequence(&CALL_IDENTIFIER)),
        may(Kind::Choice(&SECURITY)),
        may(list(&ONE_TOKEN)),
        may(list(&ONE_CRYPTO_TOKEN)),
        FAST,
    ],
    more(3),
);

const fn body(sequence: &'static Sequence) -> Field {
    must(Kind::Sequence(sequence)).noted(Mark::Inside)
}

static MESSAGE_BODY: Choice = one_of(
    &[
        body(&SETUP),
        body(&CALL_PROCEEDING),
        body(&CONNECT),
        body(&ALERTING),
        must(Kind::Sequence(&INFORMATION)),
        must(Kind::Sequence(&RELEASE_COMPLETE)),
        body(&FACILITY),
    ],
    Added { known: 6, read: &[(0, body(&PROGRESS))] },
);
static TUNNELLED_MESSAGE: Field =
    must(Kind::Choice(&CONTROL_MESSAGE)).wrapped().noted(Mark::Inside);
const H245_CONTROL: Field =
    must(Kind::List { most: TUNNELLED, item: &TUNNELLED_MESSAGE }).noted(Mark::Inside);
static UU_PDU: Sequence = extensible(
    &[must(Kind::Choice(&MESSAGE_BODY)).noted(Mark::Inside), NON_STANDARD_DATA],
    Added { known: 9, read: &[(2, H245_CONTROL), (3, STOP)] },
);
static USER_INFORMATION: Sequence = cut(1, &[body(&UU_PDU), STOP]);

static ONE_SIGNAL: Field = must(ADDRESS).noted(Mark::Signal);
static ONE_RAS: Field = must(ADDRESS).noted(Mark::Ras);
const SIGNALS: Field = must(Kind::List { most: 10, item: &ONE_SIGNAL }).noted(Mark::Inside);
const RASES: Field = must(Kind::List { most: 10, item: &ONE_RAS }).noted(Mark::Inside);
/// The first extension is where reading ends.
const ENDS: Added = Added { known: 1, read: &[(0, STOP)] };
/// One extension is skipped, the second is how long a registration lives.
const LIVES: Added =
    Added { known: 3, read: &[(1, must(Kind::Long).noted(Mark::TimeToLive)), (2, STOP)] };

static GATEKEEPER_REQUEST: Sequence =
    cut(4, &[must(WORD), must(OBJECT), NON_STANDARD_DATA, ONE_RAS_HERE, STOP]);
const ONE_RAS_HERE: Field = must(ADDRESS).noted(Mark::Ras);
const ONE_SIGNAL_HERE: Field = must(ADDRESS).noted(Mark::Signal);
static GATEKEEPER_CONFIRM: Sequence =
    extensible(&[must(WORD), must(OBJECT), NON_STANDARD_DATA, may(NAME), ONE_RAS_HERE], ENDS);
static REGISTRATION_REQUEST: Sequence = extensible(
    &[
        must(WORD),
        must(OBJECT),
        NON_STANDARD_DATA,
        must(FLAG),
        SIGNALS,
        RASES,
        ENDPOINT,
        may(ALIASES),
        may(NAME),
        must(Kind::Sequence(&VENDOR)),
    ],
    LIVES,
);
static REGISTRATION_CONFIRM: Sequence = extensible(
    &[must(WORD), must(OBJECT), NON_STANDARD_DATA, SIGNALS, may(ALIASES), may(NAME), must(NAME)],
    LIVES,
);
static UNREGISTRATION_REQUEST: Sequence = cut(3, &[must(WORD), SIGNALS, STOP]);
static ADMISSION_REQUEST: Sequence = cut(
    7,
    &[
        must(WORD),
        must(Kind::Choice(&CALL_TYPE)),
        may(Kind::Choice(&CALL_MODEL)),
        must(NAME),
        may(ALIASES),
        may(ADDRESS).noted(Mark::Destination),
        may(ALIASES),
        must(ALIASES),
        may(ADDRESS).noted(Mark::Source),
        STOP,
    ],
);
static ADMISSION_CONFIRM: Sequence =
    cut(2, &[must(WORD), must(Kind::Long), must(Kind::Choice(&CALL_MODEL)), ONE_SIGNAL_HERE, STOP]);
static LOCATION_REQUEST: Sequence =
    extensible(&[must(WORD), may(NAME), must(ALIASES), NON_STANDARD_DATA, ONE_RAS_HERE], ENDS);
static LOCATION_CONFIRM: Sequence = cut(1, &[must(WORD), ONE_SIGNAL_HERE, ONE_RAS_HERE, STOP]);
static INFO_RESPONSE: Sequence =
    cut(3, &[NON_STANDARD_DATA, must(WORD), ENDPOINT, must(NAME), ONE_RAS_HERE, SIGNALS, STOP]);

/// What each RAS message is, by its index.
pub(crate) mod index {
    pub(crate) const GATEKEEPER_REQUEST: u32 = 0;
    pub(crate) const GATEKEEPER_CONFIRM: u32 = 1;
    pub(crate) const REGISTRATION_REQUEST: u32 = 3;
    pub(crate) const REGISTRATION_CONFIRM: u32 = 4;
    pub(crate) const UNREGISTRATION_REQUEST: u32 = 6;
    pub(crate) const ADMISSION_REQUEST: u32 = 9;
    pub(crate) const ADMISSION_CONFIRM: u32 = 10;
    pub(crate) const LOCATION_REQUEST: u32 = 18;
    pub(crate) const LOCATION_CONFIRM: u32 = 19;
    pub(crate) const INFO_RESPONSE: u32 = 22;
}

static RAS_MESSAGES: [Field; 24] = {
    let mut all = [STOP; 24];
    all[index::GATEKEEPER_REQUEST as usize] = body(&GATEKEEPER_REQUEST);
    all[index::GATEKEEPER_CONFIRM as usize] = body(&GATEKEEPER_CONFIRM);
    all[index::REGISTRATION_REQUEST as usize] = body(&REGISTRATION_REQUEST);
    all[index::REGISTRATION_CONFIRM as usize] = body(&REGISTRATION_CONFIRM);
    all[index::UNREGISTRATION_REQUEST as usize] = body(&UNREGISTRATION_REQUEST);
    all[index::ADMISSION_REQUEST as usize] = body(&ADMISSION_REQUEST);
    all[index::ADMISSION_CONFIRM as usize] = body(&ADMISSION_CONFIRM);
    all[index::LOCATION_REQUEST as usize] = body(&LOCATION_REQUEST);
    all[index::LOCATION_CONFIRM as usize] = body(&LOCATION_CONFIRM);
    all[index::INFO_RESPONSE as usize] = body(&INFO_RESPONSE);
    all
};
static RAS_MESSAGE: Choice = one_of(&RAS_MESSAGES, more(8));

/// A RAS datagram.
pub(crate) static RAS: Field = must(Kind::Choice(&RAS_MESSAGE)).noted(Mark::Message);
/// The user information of a Q.931 message.
pub(crate) static USER: Field = must(Kind::Sequence(&USER_INFORMATION)).noted(Mark::Inside);
