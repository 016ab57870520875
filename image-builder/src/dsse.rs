//! Signed statements: in-toto's envelope (DSSE v1.0, <https://github.com/secure-systems-lab/dsse>).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use transparency::key::{SignerKey, UnsignedText};

/// Type of an in-toto statement (in-toto attestation framework v1, "Envelope").
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What is signed: the pre-authentication encoding, so that no payload is read as one of another type.
fn pae(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Signs an in-toto statement. The key id is the key's public text, which says whose it is; verifiers choose keys by their
/// own configuration.
pub fn envelope(statement: &Value, key: &SignerKey) -> Result<Value, UnsignedText> {
    let payload = statement.to_string().into_bytes();
    let signature = key.sign_message(&pae(&payload))?;
    Ok(json!({
        "payload": STANDARD.encode(&payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{ "keyid": key.public().to_string(), "sig": STANDARD.encode(signature) }],
    }))
}
