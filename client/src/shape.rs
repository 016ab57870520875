//! Sizes of requests: what an observer of the ciphertext may learn of them (REQUIREMENTS C6).

/// The smallest request, path and body together, in bytes; the next ones are its powers of two.
const SMALLEST: usize = 4 * 1024;

/// Pads a JSON body with spaces, which JSON allows after its one value (RFC 8259 §2), so that path and body together have
/// one of a few sizes.
pub(crate) fn padded(path: &str, mut body: Vec<u8>) -> Vec<u8> {
    let size = (path.len() + body.len()).next_power_of_two().max(SMALLEST);
    body.resize(size - path.len(), b' ');
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn c6_requests_of_whatever_kind_have_few_sizes(
            messages in proptest::collection::vec(any::<String>(), 0..200), path in "/v1/[a-z/]{1,30}",
        ) {
            let body = serde_json::to_vec(&messages).unwrap();
            let padded = padded(&path, body.clone());
            let size = path.len() + padded.len();
            prop_assert!(size.is_power_of_two() && size >= SMALLEST);
            prop_assert!(size == SMALLEST || size < 2 * (path.len() + body.len()));
            prop_assert_eq!(serde_json::from_slice::<Vec<String>>(&padded).unwrap(), messages);
        }
    }
}
