//! H.235: tokens and what else there is of security in a Progress message, all of
//! it to be skipped.

use super::h225::{ALIAS, NON_STANDARD};
use super::*;

static SERVICE_MODE: Choice =
    one_of(&[must(Kind::Sequence(&NON_STANDARD)), NULL, NULL], NOT_EXTENDED);
const MODE: Field = must(Kind::Choice(&SERVICE_MODE));
static CAPABILITIES: Sequence =
    extensible(&[may(Kind::Sequence(&NON_STANDARD)), MODE, MODE, MODE], NOT_EXTENDED);
/// H245Security.
pub(super) static SECURITY: Choice = one_of(
    &[
        must(Kind::Sequence(&NON_STANDARD)),
        NULL,
        must(Kind::Sequence(&CAPABILITIES)),
        must(Kind::Sequence(&CAPABILITIES)),
    ],
    NOT_EXTENDED,
);

const KEY: Field = must(run(Count::Word, 0, 1));
static DH_SET: Sequence = extensible(&[KEY, KEY, KEY], NOT_EXTENDED);
static CERTIFICATE: Sequence = extensible(&[must(OBJECT), must(OCTETS)], NOT_EXTENDED);
static VENDORS: Sequence = plain(&[must(OBJECT), must(OCTETS)]);
/// ClearToken.
pub(super) static TOKEN: Sequence = extensible(
    &[
        must(OBJECT),
        may(Kind::Long),
        may(NAME),
        may(Kind::Sequence(&DH_SET)),
        may(run(Count::Bits(7), 8, 8)),
        may(OCTETS),
        may(Kind::Sequence(&CERTIFICATE)),
        may(NAME),
        may(Kind::Sequence(&VENDORS)),
    ],
    more(2),
);

static PARAMETERS: Sequence = extensible(&[may(OCTETS), may(Kind::Octets(8))], more(1));
const WITH: Field = must(Kind::Sequence(&PARAMETERS));
static HASHED: Sequence = plain(&[must(OBJECT), WITH, must(BITS)]);
static ENCRYPTED: Sequence = plain(&[must(OBJECT), WITH, must(OCTETS)]);
/// What is signed comes first, wrapped.
static SIGNED: Sequence = plain(&[must(Kind::Null).wrapped(), must(OBJECT), WITH, must(BITS)]);
const HASH: Field = must(Kind::Sequence(&HASHED));
const CIPHER: Field = must(Kind::Sequence(&ENCRYPTED));
const SIGNATURE: Field = must(Kind::Sequence(&SIGNED));

static ENDPOINT_HASH: Sequence = plain(&[must(Kind::Choice(&ALIAS)), must(Kind::Long), HASH]);
static GATEKEEPER_HASH: Sequence = plain(&[must(NAME), must(Kind::Long), HASH]);
static NAMED_CIPHER: Sequence = plain(&[must(OBJECT), CIPHER]);
static NAMED_SIGNATURE: Sequence = plain(&[must(OBJECT), SIGNATURE]);
static NAMED_HASH: Sequence = plain(&[must(OBJECT), must(Kind::Sequence(&TOKEN)), HASH]);
/// CryptoToken.
static NESTED: Choice = one_of(
    &[
        must(Kind::Sequence(&NAMED_CIPHER)),
        must(Kind::Sequence(&NAMED_SIGNATURE)),
        must(Kind::Sequence(&NAMED_HASH)),
        CIPHER,
    ],
    NOT_EXTENDED,
);
/// CryptoH323Token.
pub(super) static CRYPTO_TOKEN: Choice = one_of(
    &[
        must(Kind::Sequence(&ENDPOINT_HASH)),
        must(Kind::Sequence(&GATEKEEPER_HASH)),
        CIPHER,
        CIPHER,
        SIGNATURE,
        SIGNATURE,
        SIGNATURE,
        must(Kind::Choice(&NESTED)),
    ],
    NOT_EXTENDED,
);
