//! One TLS connection over rustls' unbuffered API: bytes of the network in, plaintext out, and back.

use super::{ExporterCapture, Parked, Tls};
use crate::certificate::Identity;
use crate::wipe::WipedBuffer;
use alloc::sync::Arc;
use rustls::Error;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use zeroize::Zeroizing;

/// Most bytes that may wait for the rest of a record or of a handshake message. A ClientHello with two key shares
/// has about 2 KiB; the longest record has 16 KiB and 261 bytes (RFC 8446 §5.2).
const MAX_WAITING: usize = 24 * 1024;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The handshake is under way.
    Handshaking,
    /// Application data may flow.
    Established,
    /// The client has said that it will send no more.
    PeerClosed,
    /// The client broke the protocol. An alert may be waiting to be sent.
    Broken,
}

/// A TLS connection and its two buffers of network bytes.
pub(crate) struct TlsStream {
    connection: UnbufferedServerConnection,
    capture: Arc<ExporterCapture>,
    parked: &'static Parked,
    incoming: WipedBuffer,
    outgoing: WipedBuffer,
    progress: Progress,
    /// Whether rustls has said that it would take application data.
    may_send: bool,
}

/// What to do once rustls allows it.
enum Intent<'a> {
    Nothing,
    Send(&'a [u8]),
    Close,
}

impl TlsStream {
    /// Starts a connection under `identity`.
    pub(crate) fn new(tls: &Tls, identity: &Identity) -> Result<Self, Error> {
        let capture = Arc::new(ExporterCapture::new());
        let mut config = identity.config.clone();
        config.key_log = capture.clone();
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::new(config))?,
            capture,
            parked: tls.parked,
            incoming: WipedBuffer::new(),
            outgoing: WipedBuffer::new(),
            progress: Progress::Handshaking,
            may_send: false,
        })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// The nonce of a client that wants evidence right after the server's Finished: its random. All that evidence binds is
    /// fixed by then, and a client checks it after the handshake as it would later.
    pub(crate) fn asks_for_evidence(&self) -> Option<[u8; 32]> {
        let asks = self.may_send && self.connection.alpn_protocol() == Some(wire::path::EVIDENCE_FIRST);
        asks.then(|| self.capture.client_random())
    }

    /// The exporter of this connection, once, after the server's Finished.
    pub(crate) fn export(&self, label: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        self.capture.export(label)
    }

    /// Takes bytes from the network and appends what they decrypt to.
    pub(crate) fn receive(&mut self, bytes: &[u8], plaintext: &mut WipedBuffer) {
        if matches!(self.progress, Progress::Broken | Progress::PeerClosed) {
            return;
        }
        self.incoming.push(bytes);
        self.drive(plaintext, Intent::Nothing);
        if self.incoming.len() > MAX_WAITING {
            self.break_off();
        }
    }

    /// Encrypts plaintext.
    pub(crate) fn send(&mut self, plaintext: &[u8]) {
        if self.progress == Progress::Broken {
            return;
        }
        // Everything that was received has been read, so nothing more comes up here.
        self.drive(&mut WipedBuffer::new(), Intent::Send(plaintext));
    }

    /// Says that no more will be sent.
    pub(crate) fn close(&mut self) {
        if self.progress == Progress::Broken {
            return;
        }
        self.drive(&mut WipedBuffer::new(), Intent::Close);
    }

    /// Bytes for the network.
    pub(crate) fn pending(&self) -> &[u8] {
        self.outgoing.as_slice()
    }

    /// The first `count` pending bytes are on their way.
    pub(crate) fn sent(&mut self, count: usize) {
        self.outgoing.consume(count);
    }

    /// With an error, rustls queues an alert, and gives it out first thing when it is called again. To call it more often
    /// than that after an error would make it read the same bytes again.
    fn encode_alert(&mut self) {
        let status = self.connection.process_tls_records(self.incoming.as_mut_slice());
        if let Ok(ConnectionState::EncodeTlsData(alert)) = status.state {
            // Without the alert the client sees a connection that ends, which is as good.
            let _ = encode(alert, &mut self.outgoing);
        }
    }

    /// After this, rustls is not called any more: it remembers places in the incoming bytes, which are gone.
    fn break_off(&mut self) {
        self.progress = Progress::Broken;
        self.parked.discard();
        self.incoming.clear();
    }

    /// Lets rustls work until it waits for the network.
    fn drive(&mut self, plaintext: &mut WipedBuffer, mut intent: Intent<'_>) {
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(self.incoming.as_mut_slice());
            let outcome = match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    let mut read = Ok(Next::Again);
                    while let Some(record) = records.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                self.parked.take(plaintext);
                            }
                            Err(error) => read = Err(error),
                        }
                    }
                    read
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(Next::Again)
                }
                Ok(ConnectionState::WriteTraffic(writer)) => {
                    self.may_send = true;
                    write(writer, core::mem::replace(&mut intent, Intent::Nothing), &mut self.outgoing)
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.progress = Progress::PeerClosed;
                    Ok(Next::Again)
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Next::Stop),
                // Early data is off.
                Ok(_) => Err(Error::General("a state that the configuration excludes".into())),
                Err(error) => Err(error),
            };
            self.incoming.consume(discard);
            // With the client's Finished, not before.
            if self.progress == Progress::Handshaking && !self.connection.is_handshaking() {
                self.progress = Progress::Established;
            }
            match outcome {
                Ok(Next::Again) => {}
                Ok(Next::Stop) => return,
                Err(_) => {
                    self.encode_alert();
                    return self.break_off();
                }
            }
        }
    }
}

enum Next {
    Again,
    Stop,
}

type Data = ServerConnectionData;

fn encode(mut data: EncodeTlsData<'_, Data>, outgoing: &mut WipedBuffer) -> Result<Next, Error> {
    let length = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(Next::Again),
    };
    match data.encode(outgoing.push_zeros(length)) {
        Ok(_) => Ok(Next::Again),
        Err(_) => Err(Error::General("the size that rustls asked for was too small".into())),
    }
}

fn write(
    mut writer: WriteTraffic<'_, Data>,
    intent: Intent<'_>,
    outgoing: &mut WipedBuffer,
) -> Result<Next, Error> {
    let mut attempt = |space: &mut [u8]| match intent {
        Intent::Nothing => Ok(0),
        Intent::Send(plaintext) => writer.encrypt(plaintext, space),
        Intent::Close => writer.queue_close_notify(space),
    };
    // The first attempt only asks for the size: rustls checks it before it does anything.
    let length = match attempt(&mut []) {
        Ok(_) => return Ok(Next::Stop),
        Err(EncryptError::InsufficientSize(size)) => size.required_size,
        Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
    };
    let start = outgoing.len();
    match attempt(outgoing.push_zeros(length)) {
        Ok(written) => {
            outgoing.truncate(start + written);
            Ok(Next::Again)
        }
        Err(_) => Err(Error::EncryptError),
    }
}
