//! Signatures by which a receiver knows who sent a message.
//!
//! Source: Standard Webhooks 1.0.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// With padding when written, with or without when read: secrets go around in both forms.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What both sides know and nobody else does.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// From `whsec_` and base64; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = BASE64.decode(text.strip_prefix("whsec_")?).ok()?;
        (!key.is_empty()).then_some(Self(key))
    }

    /// How many bytes it has: 24 to 64 are what the standard wants.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes, which it never does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The value of `webhook-signature`: one signature for each secret, so that a
/// receiver that knows any of them is content while they are exchanged. `id`
/// must not contain a full stop; `seconds` are those since 1970 of this attempt.
#[must_use]
pub fn signature(secrets: &[Secret], id: &str, seconds: u64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, seconds, body)).collect::<Vec<_>>().join(" ")
}

impl Secret {
    fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key may have any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    /// The vector that the standard's libraries are tested with.
    #[test]
    fn the_published_vector_is_met() {
        let secret = Secret::parse(SECRET).unwrap();
        let signed = signature(&[secret], ID, 1_614_265_330, BODY);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_while_they_are_exchanged() {
        let old = Secret::parse(SECRET).unwrap();
        let new = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let both = signature(&[new.clone(), old.clone()], ID, 7, BODY);
        let each = [new, old].map(|secret| signature(&[secret], ID, 7, BODY));
        assert_eq!(both, each.join(" "));
        assert_ne!(each[0], each[1]);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_none_is_shown() {
        for bad in ["", "whsec_", "whsec_???", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{:?}", Secret::parse(SECRET).unwrap()), "Secret");
    }
}
