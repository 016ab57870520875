//! Published vectors, put through the code that TLS uses.

use super::aead::Decrypter;
use super::hash::{HmacSha256, Sha256};
use super::key_exchange::{X25519, X25519MlKem768};
use super::parked::Parked;
use super::signing::SigningKey;
use crate::wipe::WipedBuffer;
use aes_gcm::Aes128Gcm;
use aes_gcm::aead::KeyInit;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use rustls::crypto::cipher::{InboundOpaqueMessage, Iv, MessageDecrypter};
use rustls::crypto::hash::Hash;
use rustls::crypto::tls13::{Hkdf, HkdfUsingHmac};
use rustls::crypto::{GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, aws_lc_rs};
use rustls::sign::Signer;
use rustls::{ContentType, Error, ProtocolVersion};

fn hex(text: &str) -> Vec<u8> {
    ::hex::decode(text.replace([' ', '\n'], "")).expect("hexadecimal digits")
}

/// Gives bytes that were fixed before.
#[derive(Debug)]
struct Fixed(Vec<u8>);

impl SecureRandom for Fixed {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        out.copy_from_slice(self.0.get(..out.len()).ok_or(GetRandomFailed)?);
        Ok(())
    }
}

fn fixed(bytes: Vec<u8>) -> &'static dyn SecureRandom {
    Box::leak(Box::new(Fixed(bytes)))
}

/// RFC 8448 §3: the client's ephemeral key, the server's share, and what they agree on.
#[test]
fn x25519_agrees_as_in_rfc_8448() {
    let private = hex("49af42ba7f7994852d713ef2784bcbcaa7911de26adc5642cb634540e7ea5005");
    let ours = X25519 { random: fixed(private) }.start().expect("a key");
    assert_eq!(ours.pub_key(), hex("99381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c"));
    let theirs = hex("c9828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f");
    let shared = ours.complete(&theirs).expect("a shared secret");
    assert_eq!(
        shared.secret_bytes(),
        hex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d")
    );
}

/// RFC 8446 §7.4.2 and RFC 7748 §6.1: points of low order give zero, which must be refused.
#[test]
fn x25519_refuses_shares_that_contribute_nothing() {
    let group = X25519 { random: fixed(vec![0x42; 32]) };
    for share in [vec![0; 32], [vec![1], vec![0; 31]].concat(), vec![9; 31], vec![9; 33], vec![]] {
        assert!(group.start().expect("a key").complete(&share).is_err(), "{share:02x?}");
    }
}

/// draft-ietf-tls-ecdhe-mlkem has no vectors; another implementation of the client's side is the judge.
#[test]
fn the_hybrid_agrees_with_another_implementation() {
    let random = aws_lc_rs::default_provider().secure_random;
    for _ in 0..4 {
        let client = aws_lc_rs::kx_group::X25519MLKEM768.start().expect("a share");
        let server = X25519MlKem768 { random }.start_and_complete(client.pub_key()).expect("an answer");
        assert_eq!(server.pub_key.len(), 1088 + 32);
        let shared = client.complete(&server.pub_key).expect("a shared secret");
        assert_eq!(shared.secret_bytes(), server.secret.secret_bytes());
        assert_eq!(shared.secret_bytes().len(), 64);
    }
}

#[test]
fn the_hybrid_refuses_malformed_shares() {
    let random = aws_lc_rs::default_provider().secure_random;
    let group = X25519MlKem768 { random };
    let good = aws_lc_rs::kx_group::X25519MLKEM768.start().expect("a share").pub_key().to_vec();
    assert!(group.start_and_complete(&good).is_ok());
    let mut all = vec![vec![], good[..1184].to_vec(), good[..1215].to_vec(), [&good[..], &[0]].concat()];
    // FIPS 203 §7.2: a coefficient of 4095 is above the modulus 3329.
    let mut unreduced = good.clone();
    unreduced[..3].fill(0xff);
    all.push(unreduced);
    let mut zero_point = good;
    zero_point[1184..].fill(0);
    all.push(zero_point);
    for share in all {
        assert!(group.start_and_complete(&share).is_err(), "{} bytes", share.len());
    }
}

/// RFC 8448 §3: from the shared secret to the server's handshake key.
#[test]
fn the_key_schedule_is_that_of_rfc_8448() {
    let hkdf = HkdfUsingHmac(&HmacSha256);
    let expand =
        |secret: &dyn rustls::crypto::tls13::HkdfExpander, label: &str, context: &[u8], length: usize| {
            let mut out = vec![0; length];
            super::exporter::expand_label(secret, label.as_bytes(), context, &mut out)
                .expect("a short output");
            out
        };
    let of_nothing = Sha256.hash(b"");
    let early = hkdf.extract_from_zero_ikm(None);
    let derived = expand(&*early, "derived", of_nothing.as_ref(), 32);
    assert_eq!(derived, hex("6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba"));
    let shared = hex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d");
    let handshake = hkdf.extract_from_secret(Some(&derived), SharedSecret::from(&shared[..]).secret_bytes());
    let hello = hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8");
    let server = expand(&*handshake, "s hs traffic", &hello, 32);
    assert_eq!(server, hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"));
    let client = expand(&*handshake, "c hs traffic", &hello, 32);
    assert_eq!(client, hex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"));
    let server = hkdf.expander_for_okm(&rustls::crypto::tls13::OkmBlock::new(&server));
    assert_eq!(expand(&*server, "key", &[], 16), hex("3fce516009c21727d0f2e4e86ee403bc"));
    assert_eq!(expand(&*server, "iv", &[], 12), hex("5d313eb2671276ee13000b30"));
    let master = hkdf.extract_from_zero_ikm(Some(&expand(&*handshake, "derived", of_nothing.as_ref(), 32)));
    let finished = hex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13");
    let exporter = expand(&*master, "exp master", &finished, 32);
    assert_eq!(exporter, hex("fe22f881176eda18eb8f44529e6792c50c9a3f89452f68d8ae311b4309d3cf50"));
}

/// RFC 8448 §3: the client's record of application data.
#[test]
fn a20_a_record_of_rfc_8448_decrypts_into_the_slot_and_nowhere_else() {
    let parked: &'static Parked = Box::leak(Box::new(Parked::new()));
    let cipher = Aes128Gcm::new_from_slice(&hex("17422dda596ed5d9acd890e3c63f5051")).expect("16 bytes");
    let iv: [u8; 12] = hex("5b78923dee08579033e523d9").try_into().expect("12 bytes");
    let mut decrypter = Decrypter { cipher, iv: Iv::from(iv), parked };
    let record = hex(
        "a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a
         6292a2977014bd1e3deae63aeebb21694915e4",
    );
    let mut decrypt = |record: &mut [u8]| {
        let message =
            InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, record);
        decrypter.decrypt(message, 0).map(|message| (message.typ, message.payload.to_vec()))
    };
    assert_eq!(decrypt(&mut record.clone()), Ok((ContentType::ApplicationData, vec![0; 50])));
    let mut taken = WipedBuffer::new();
    parked.take(&mut taken);
    assert_eq!(taken.as_slice(), (0..50).collect::<Vec<u8>>());
    assert!(parked.is_wiped());

    for at in 0..record.len() {
        let mut altered = record.clone();
        altered[at] ^= 1;
        assert_eq!(decrypt(&mut altered), Err(Error::DecryptError));
    }
    assert!(decrypt(&mut []).is_err());
    // A record that nobody took is never overwritten by the next one.
    assert!(decrypt(&mut record.clone()).is_ok());
    assert!(decrypt(&mut record.clone()).is_err());
    parked.discard();
    assert!(parked.is_wiped());
}

/// RFC 8032 §7.1, test 2.
#[test]
fn keys_and_signatures_are_those_of_rfc_8032() {
    let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
                     085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    let key = SigningKey::generate(fixed(hex(seed))).expect("a key");
    assert_eq!(key.spki(), [hex("302a300506032b6570032100"), hex(public)].concat());
    assert_eq!(key.sign(&[0x72]).expect("a signature"), hex(signature));
}

#[test]
fn a15_a_generator_that_gives_nothing_makes_no_key() {
    assert!(SigningKey::generate(fixed(vec![])).is_err());
}
