use super::*;
use proptest::prelude::*;
use zeroize::Zeroizing;

fn key() -> SecretKey {
    // RFC 9458 Appendix A.
    let secret = hex::decode("3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a").unwrap();
    SecretKey::new(1, Kem::X25519, Zeroizing::new(secret)).unwrap()
}

fn open(opener: Opener, pieces: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let (mut opener, mut content) = (opener, Vec::new());
    for piece in pieces {
        opener.push(piece, &mut content)?;
    }
    opener.finish(&mut content)?;
    Ok(content)
}

fn accept(request: &[u8], form: Form, keys: &[SecretKey]) -> Result<(Vec<u8>, ServerExchange), Error> {
    let (header, length) = Header::parse(request, keys)?.ok_or(Error::Truncated)?;
    let (opener, exchange) = ServerExchange::accept(&header, form, keys, 1 << 20)?;
    Ok((open(opener, &[&request[length..]])?, exchange))
}

#[test]
fn rfc_9458_appendix_a() {
    let config = "01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e7981550008\
                  0001000100010003";
    let decoded = KeyConfig::decode(&hex::decode(config).unwrap()).unwrap();
    assert_eq!((&decoded.public, decoded.key_id), (&key().config().public, 1));
    assert_eq!(hex::encode(decoded.encode()), config);
    assert_eq!(decoded.suite().unwrap(), Suite { kem: Kem::X25519, aead: Aead::Aes128Gcm });

    let request = hex::decode(
        "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e\
         1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525",
    )
    .unwrap();
    let keys = [key()];
    let (header, length) = Header::parse(&request, &keys).unwrap().unwrap();
    let (opener, exchange) = ServerExchange::accept(&header, Form::Whole, &keys, 1 << 20).unwrap();
    let content = open(opener, &[&request[length..]]).unwrap();
    assert_eq!(hex::encode(content), "00034745540568747470730b6578616d706c652e636f6d012f");

    // The response of the example has its nonce, so it can be opened with what both sides export.
    let response =
        hex::decode("c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd").unwrap();
    let client = exchange.into_client();
    assert_eq!(hex::encode(open(client.response(1 << 20), &[&response]).unwrap()), "0140c8");
}

#[test]
fn draft_chunked_ohttp_08_example() {
    let secret = hex::decode("1c190d72acdbe4dbc69e680503bb781a932c70a12c8f3754434c67d8640d8698").unwrap();
    let keys = [SecretKey::new(1, Kem::X25519, Zeroizing::new(secret)).unwrap()];
    let config = "010020668eb21aace159803974a4c67f08b4152d29bed10735fd08f98ccdd6fe09570800080001000100010003";
    assert_eq!(KeyConfig::decode(&hex::decode(config).unwrap()).unwrap().public, keys[0].config().public);
    let request = hex::decode(
        "010020000100018811eb457e100811c40a0aa71340a1b81d804bb986f736f2f566a7199761a0321c2ad24942d4d692563012f298\
         0c8fef437a336b9b2fc938ef77a5834f1d2e33d8fd25577afe31bd1c79d094f76b6250ae6549b473ecd950501311001c6c1395d0\
         ef7c1022297966307b8a7f",
    )
    .unwrap();
    let (content, exchange) = accept(&request, Form::Chunked, &keys).unwrap();
    assert_eq!(hex::encode(content), "00034745540568747470730b6578616d706c652e636f6d012f");
    let response = hex::decode(
        "bcce7f4cb921309ba5d62edf1769ef091179bf1cc87fa0e2c02de4546945aa3d1e4812b348b5bd4c594c16b6170b07b475845d1f\
         3200ed9d8a796617a5b27265f4d73247f639",
    )
    .unwrap();
    assert_eq!(hex::encode(open(exchange.into_client().response(1 << 20), &[&response]).unwrap()), "0140c8");
    for end in 0..response.len() {
        let (_, exchange) = accept(&request, Form::Chunked, &keys).unwrap();
        let cut = open(exchange.into_client().response(1 << 20), &[&response[..end]]);
        assert!(cut.is_err(), "cut at {end}");
    }
}

fn exchange(form: Form, kem: Kem, request: &[u8], response: &[u8]) {
    let keys = [SecretKey::generate(9, kem).unwrap()];
    let (mut sent, sealer, client) = ClientExchange::start(keys[0].config(), form).unwrap();
    sealer.finish(request, &mut sent).unwrap();
    let (received, server) = accept(&sent, form, &keys).unwrap();
    assert_eq!(received, request);

    let (mut sent, sealer) = server.respond().unwrap();
    sealer.finish(response, &mut sent).unwrap();
    assert_eq!(open(client.response(1 << 20), &[&sent]).unwrap(), response);
}

#[test]
fn every_kem_and_form_carries_a_request_and_its_response() {
    for kem in Kem::ALL {
        for form in [Form::Whole, Form::Chunked] {
            exchange(form, kem, b"", b"");
            exchange(form, kem, b"question", b"answer");
            exchange(form, kem, &vec![7; MAX_CHUNK], &vec![8; 3 * MAX_CHUNK + 1]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_open_wherever_the_message_is_cut(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        cut in 1_usize..50,
    ) {
        let keys = [key()];
        let (mut sent, mut sealer, _) = ClientExchange::start(keys[0].config(), Form::Chunked).unwrap();
        let start = sent.len();
        for piece in &pieces {
            sealer.seal(piece, &mut sent).unwrap();
        }
        sealer.finish(b"", &mut sent).unwrap();
        let (header, _) = Header::parse(&sent, &keys).unwrap().unwrap();
        let (opener, _) = ServerExchange::accept(&header, Form::Chunked, &keys, 1 << 20).unwrap();
        let cuts: Vec<&[u8]> = sent[start..].chunks(cut).collect();
        prop_assert_eq!(open(opener, &cuts).unwrap(), pieces.concat());
    }
}

/// A request of three chunks, cut into header and chunks with their lengths.
fn chunked() -> (Vec<SecretKey>, Vec<Vec<u8>>) {
    let keys = vec![key()];
    let (header, mut sealer, _) = ClientExchange::start(keys[0].config(), Form::Chunked).unwrap();
    let mut parts = vec![header];
    for content in [b"first", b"other"] {
        let mut part = Vec::new();
        sealer.seal(content, &mut part).unwrap();
        parts.push(part);
    }
    let mut last = Vec::new();
    sealer.finish(b"final", &mut last).unwrap();
    parts.push(last);
    (keys, parts)
}

#[test]
fn c4_a_message_that_is_cut_anywhere_is_an_error() {
    let (keys, parts) = chunked();
    let whole = parts.concat();
    assert_eq!(accept(&whole, Form::Chunked, &keys).unwrap().0, b"firstotherfinal");
    for end in 0..whole.len() {
        assert!(accept(&whole[..end], Form::Chunked, &keys).is_err(), "cut at {end}");
    }
}

#[test]
fn c4_chunks_that_are_missing_repeated_or_reordered_are_an_error() {
    let (keys, parts) = chunked();
    let [header, first, other, last] = [0, 1, 2, 3].map(|index| parts[index].clone());
    for wrong in [
        vec![&header, &other, &last],
        vec![&header, &other, &first, &last],
        vec![&header, &first, &first, &other, &last],
        vec![&header, &last],
        vec![&header, &first, &other, &last, &last],
    ] {
        let wrong: Vec<u8> = wrong.into_iter().flatten().copied().collect();
        assert!(accept(&wrong, Form::Chunked, &keys).is_err());
    }
}

#[test]
fn c4_an_empty_chunk_is_an_error_and_no_end() {
    let keys = [key()];
    let (mut sent, sealer, _) = ClientExchange::start(keys[0].config(), Form::Chunked).unwrap();
    let start = sent.len();
    let mut direction = sealer.into_direction();
    for content in [&b"transfer 100 to Alice"[..], b"", b" only if she asks"] {
        let sealed = direction.seal(content, b"").unwrap();
        write_varint(sealed.len(), &mut sent);
        sent.extend_from_slice(&sealed);
    }
    write_varint(0, &mut sent);
    sent.extend_from_slice(&direction.seal(b"", b"final").unwrap());

    let (header, _) = Header::parse(&sent, &keys).unwrap().unwrap();
    let (mut opener, _) = ServerExchange::accept(&header, Form::Chunked, &keys, 1 << 20).unwrap();
    let mut content = Vec::new();
    assert_eq!(opener.push(&sent[start..], &mut content), Err(Error::EmptyChunk));

    // What the `ohttp` crate makes of the same bytes: a complete message of the first chunk. When this fails, the defect
    // is mended there, and docs/DEPENDENCIES.md has one reason less.
    let secret = ohttp::KeyConfig::derive(
        1,
        ohttp::hpke::Kem::X25519Sha256,
        vec![ohttp::SymmetricSuite::new(ohttp::hpke::Kdf::HkdfSha256, ohttp::hpke::Aead::Aes128Gcm)],
        &[7; 32],
    )
    .unwrap();
    let config = KeyConfig::decode(&secret.encode().unwrap()).unwrap();
    let (mut sent, sealer, _) = ClientExchange::start(&config, Form::Chunked).unwrap();
    let mut direction = sealer.into_direction();
    for content in [&b"begun"[..], b"", b"and never read"] {
        let sealed = direction.seal(content, b"").unwrap();
        write_varint(sealed.len(), &mut sent);
        sent.extend_from_slice(&sealed);
    }
    write_varint(0, &mut sent);
    sent.extend_from_slice(&direction.seal(b"", b"final").unwrap());
    let read = futures(async {
        use futures_util::io::AsyncReadExt;
        let server = ohttp::Server::new(secret).unwrap();
        let mut stream = Box::pin(server.decapsulate_stream(&sent[..]));
        let (mut content, mut buffer) = (Vec::new(), [0; 256]);
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Ok(content),
                Ok(length) => content.extend_from_slice(&buffer[..length]),
                Err(error) => return Err(error.to_string()),
            }
        }
    });
    assert_eq!(read.as_deref(), Ok(&b"begun"[..]));
}

fn futures<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn the_ohttp_crate_reads_and_writes_the_same_messages() {
    use futures_util::io::{AsyncReadExt, AsyncWriteExt};
    for kem in [ohttp::hpke::Kem::X25519Sha256, ohttp::hpke::Kem::XWing] {
        // AES-256-GCM it does not have.
        for aead in [ohttp::hpke::Aead::Aes128Gcm, ohttp::hpke::Aead::ChaCha20Poly1305] {
            let suite = ohttp::SymmetricSuite::new(ohttp::hpke::Kdf::HkdfSha256, aead);
            let theirs = ohttp::KeyConfig::new(3, kem, vec![suite]).unwrap();
            let server = ohttp::Server::new(theirs).unwrap();
            let config = KeyConfig::decode(&server.config().encode().unwrap()).unwrap();

            // Whole, our client.
            let (mut sent, sealer, client) = ClientExchange::start(&config, Form::Whole).unwrap();
            sealer.finish(b"request", &mut sent).unwrap();
            let (request, response) = server.decapsulate(&sent).unwrap();
            assert_eq!(request, b"request");
            let response = response.encapsulate(b"response").unwrap();
            assert_eq!(open(client.response(1 << 20), &[&response]).unwrap(), b"response");

            // In chunks, our client.
            let (mut sent, mut sealer, client) = ClientExchange::start(&config, Form::Chunked).unwrap();
            sealer.seal(b"request ", &mut sent).unwrap();
            sealer.finish(b"in parts", &mut sent).unwrap();
            let response = futures(async {
                let mut stream = Box::pin(server.clone().decapsulate_stream(&sent[..]));
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await.unwrap();
                assert_eq!(request, b"request in parts");
                let mut response = Vec::new();
                let mut writer = Box::pin(stream.response(&mut response).unwrap());
                writer.write_all(b"response ").await.unwrap();
                writer.write_all(b"in parts").await.unwrap();
                writer.close().await.unwrap();
                drop(writer);
                response
            });
            assert_eq!(open(client.response(1 << 20), &[&response]).unwrap(), b"response in parts");
        }
    }

    for kem in Kem::ALL {
        let keys = [SecretKey::generate(5, kem).unwrap()];
        let list = encode_list([keys[0].config()]);
        // Whole, their client.
        let client = ohttp::ClientRequest::from_encoded_config_list(&list).unwrap();
        let (sent, client) = client.encapsulate(b"request").unwrap();
        let (request, server) = accept(&sent, Form::Whole, &keys).unwrap();
        assert_eq!(request, b"request");
        let (mut response, sealer) = server.respond().unwrap();
        sealer.finish(b"response", &mut response).unwrap();
        assert_eq!(client.decapsulate(&response).unwrap(), b"response");
        // In chunks, their client.
        let (request, response) = futures(async {
            let client = ohttp::ClientRequest::from_encoded_config_list(&list).unwrap();
            let mut sent = Vec::new();
            let mut writer = Box::pin(client.encapsulate_stream(&mut sent).unwrap());
            writer.write_all(b"request ").await.unwrap();
            writer.write_all(b"in parts").await.unwrap();
            writer.close().await.unwrap();
            let source = Source::default();
            let pending = writer.response(source.clone()).unwrap();
            drop(writer);
            let (request, server) = accept(&sent, Form::Chunked, &keys).unwrap();
            let (mut response, mut sealer) = server.respond().unwrap();
            sealer.seal(b"response ", &mut response).unwrap();
            sealer.finish(b"in parts", &mut response).unwrap();
            source.0.lock().unwrap().extend(response);
            let mut answer = Vec::new();
            Box::pin(pending).read_to_end(&mut answer).await.unwrap();
            (request, answer)
        });
        assert_eq!((&request[..], &response[..]), (&b"request in parts"[..], &b"response in parts"[..]));
    }
}

/// Bytes that are there only after the reader was made.
#[derive(Clone, Default)]
struct Source(std::sync::Arc<std::sync::Mutex<std::collections::VecDeque<u8>>>);

impl futures_util::io::AsyncRead for Source {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(std::io::Read::read(&mut *self.0.lock().unwrap(), buffer))
    }
}

#[test]
fn c8_headers_of_other_keys_and_algorithms_are_told_apart() {
    let keys = [key(), SecretKey::generate(2, Kem::XWing).unwrap()];
    let (good, _, _) = ClientExchange::start(keys[0].config(), Form::Whole).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Header::parse(&bytes, &keys)
    };
    assert!(matches!(with(0, 1), Ok(Some(_))));
    assert_eq!(with(0, 77), Err(Error::UnknownKey));
    assert_eq!(with(0, 2), Err(Error::Algorithms), "the KEM of another key");
    for at in 1..7 {
        assert_eq!(with(at, 0xee), Err(Error::Algorithms), "{at}");
    }
    for end in 0..good.len() {
        assert_eq!(Header::parse(&good[..end], &keys), Ok(None));
    }
}

#[test]
fn c8_what_is_too_large_is_refused_before_it_is_kept() {
    let keys = [key()];
    let (mut sent, _, _) = ClientExchange::start(keys[0].config(), Form::Chunked).unwrap();
    let (header, _) = Header::parse(&sent, &keys).unwrap().unwrap();
    let opener = |form, limit| ServerExchange::accept(&header, form, &keys, limit).unwrap().0;
    let mut content = Vec::new();
    // A chunk that says it is longer than any may be; one that is the last and goes on; a whole message.
    sent.clear();
    write_varint(MAX_CHUNK + 17, &mut sent);
    assert_eq!(opener(Form::Chunked, 1 << 20).push(&sent, &mut content), Err(Error::TooLarge));
    let long = vec![0; MAX_CHUNK + 18];
    assert_eq!(opener(Form::Chunked, 1 << 20).push(&long, &mut content), Err(Error::TooLarge));
    assert_eq!(opener(Form::Whole, 1000).push(&[0; 1017], &mut content), Err(Error::TooLarge));
}

#[test]
fn malformed_configurations_are_refused() {
    let good = key().config().encode();
    for end in 0..good.len() {
        assert!(KeyConfig::decode(&good[..end]).is_err());
    }
    assert_eq!(KeyConfig::decode(&[&good[..], &[0]].concat()), Err(ConfigError::Malformed));
    let unknown = [&[0, 3, 0, 0, 0][..], &encode_list([key().config()])].concat();
    assert_eq!(decode_list(&unknown).unwrap(), [key().config().clone()]);
    assert_eq!(decode_list(&[0, 3, 0, 0, 0]), Err(ConfigError::Unsupported));
    assert_eq!(decode_list(&[1]), Err(ConfigError::Malformed));
}
