//! The UUID of a message, made from the event's id alone: a retry has the same one.

/// The hexadecimal digits of an id `evt_` + 32 digits, with hyphens. Any other id gives a UUID of version
/// 8 (RFC 9562: made by a rule of one's own) whose other 122 bits are of the 128-bit FNV-1a hash of the id.
pub(crate) fn message_id(event_id: &str) -> String {
    let digits = event_id
        .strip_prefix("evt_")
        .filter(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match digits {
        Some(digits) => hyphenate(&digits.to_ascii_lowercase()),
        None => hyphenate(&format!("{:032x}", version_8(fnv_1a(event_id.as_bytes())))),
    }
}

fn hyphenate(digits: &str) -> String {
    let mut text = String::with_capacity(36);
    for (position, digit) in digits.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// Sets the bits that say what kind of UUID it is.
fn version_8(bits: u128) -> u128 {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    (bits & !(VERSION | VARIANT)) | (8 << 76) | (0b10 << 62)
}

fn fnv_1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(OFFSET, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_of_a_uuid_gives_that_uuid() {
        let expected = "8e3bfae9-ac06-4a0a-beae-653b2d56f69f";
        assert_eq!(message_id("evt_8e3bfae9ac064a0abeae653b2d56f69f"), expected);
        assert_eq!(message_id("evt_8E3BFAE9AC064A0ABEAE653B2D56F69F"), expected);
    }

    #[test]
    fn any_other_id_gives_a_uuid_of_version_8() {
        for id in ["", "a", "evt_8e3b", "evt_ze3bfae9ac064a0abeae653b2d56f69f"] {
            let uuid = message_id(id);
            assert_eq!(uuid.len(), 36);
            assert_eq!(&uuid[14..15], "8", "{uuid}");
            assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
            assert_eq!(uuid, message_id(id));
        }
        assert_ne!(message_id("a"), message_id("b"));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Published test vectors.
        assert_eq!(fnv_1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv_1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
