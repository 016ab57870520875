//! A session's byte stream over Oblivious HTTP exchanges.

use super::{Mode, TransportError, Way};
use crate::bhttp::{self, Decoder};
use crate::body::{Body, streamed, whole};
use crate::ohttp::{ClientExchange, Form, Opener, PROBLEM_KEY, Sealer};
use crate::session::{APPEND, MAX_CONTENT, OFFSET_FIELD, OPEN, SESSION_FIELD, SessionId};
use crate::token::structure::Token;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::PollSender;

/// Most bytes of an answer outside of the encapsulation that are looked at.
const MAX_PROBLEM: usize = 4 * 1024;
/// Most bytes that are taken up at a time.
const PIECE: usize = 16 * 1024;

/// What the stream's owner wants sent.
enum Outgoing {
    Bytes(Bytes),
    /// No more.
    End,
}

/// A session's byte stream. Dropping it without a shutdown breaks the session off.
#[derive(Debug)]
pub struct Tunnel {
    received: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    /// Something of the answer came.
    begun: bool,
    over: bool,
    sender: PollSender<Outgoing>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outgoing")
    }
}

impl Tunnel {
    pub(super) fn open(way: &Way, token: &Token) -> Result<Self, TransportError> {
        let (mut start, mut sealer, exchange) =
            ClientExchange::start(&way.gateway, Form::Chunked).map_err(|_| TransportError::Seal)?;
        // The authority is the gateway itself; which one, its key has decided.
        let head = bhttp::request_head("POST", "", OPEN, &[("authorization", &token.authorization())]);
        sealer.seal(&head, &mut start).map_err(|_| TransportError::Seal)?;

        let (body, request_body) = streamed();
        let (to_reader, received) = mpsc::channel(4);
        let (sender, from_writer) = mpsc::channel(4);
        let (tell_session, session) = watch::channel(None);
        let request = request(way, Form::Chunked, request_body)?;
        let answered = way.client.request(request);
        tokio::spawn(async move {
            let result = async {
                let response = answered.await.map_err(|_| TransportError::Relay)?;
                receive(response, exchange, &to_reader, &tell_session).await
            };
            // When the reader has gone, nobody wants the rest.
            let result = tokio::select! {
                result = result => result,
                () = to_reader.closed() => return,
            };
            if let Err(error) = result {
                let _ = to_reader.send(Err(error.into())).await;
            }
        });
        let way = way.clone();
        tokio::spawn(async move {
            let mut uplink = Uplink { from_writer, body };
            match way.mode {
                Mode::Duplex => uplink.duplex(start, sealer).await,
                Mode::Requests => uplink.requests(&way, start, sealer, session).await,
            }
        });
        Ok(Self {
            received,
            current: Bytes::new(),
            begun: false,
            over: false,
            sender: PollSender::new(sender),
        })
    }
}

impl Tunnel {
    /// Takes up the answer's next piece.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.received.poll_recv(context)) {
            Some(Ok(bytes)) => (self.current, self.begun) = (bytes, true),
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => self.over = true,
        }
        Poll::Ready(Ok(()))
    }

    /// Why nothing more is sent. Who refuses a session may do so before all of the request is there, and only the answer says why.
    fn poll_why(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.begun
            && !self.over
            && let Err(error) = ready!(self.poll_piece(context))
        {
            return Poll::Ready(error);
        }
        Poll::Ready(io::ErrorKind::BrokenPipe.into())
    }
}

fn request(way: &Way, form: Form, body: Body) -> Result<Request<Body>, TransportError> {
    let mut request = Request::post(way.relay.clone()).header(CONTENT_TYPE, form.request_type());
    if form == Form::Chunked {
        request = request.header("incremental", "?1");
    }
    request.body(body).map_err(|_| TransportError::Malformed)
}

/// Sends what the stream's owner writes.
struct Uplink {
    from_writer: mpsc::Receiver<Outgoing>,
    body: mpsc::Sender<io::Result<Bytes>>,
}

impl Uplink {
    /// All of it in the one request, as it comes.
    async fn duplex(&mut self, start: Vec<u8>, mut sealer: Sealer) {
        let mut out = start;
        loop {
            if self.body.send(Ok(std::mem::take(&mut out).into())).await.is_err() {
                return;
            }
            let next = tokio::select! {
                next = self.from_writer.recv() => next,
                () = self.body.closed() => return,
            };
            let Some(Outgoing::Bytes(bytes)) = next else {
                if next.is_some() && sealer.finish(&bhttp::END, &mut out).is_ok() {
                    let _ = self.body.send(Ok(out.into())).await;
                    return;
                }
                return self.break_off().await;
            };
            let mut content = Vec::with_capacity(bytes.len() + 8);
            bhttp::content(&bytes, &mut content);
            if sealer.seal(&content, &mut out).is_err() {
                return self.break_off().await;
            }
        }
    }

    async fn break_off(&self) {
        let _ = self.body.send(Err(io::ErrorKind::ConnectionAborted.into())).await;
    }

    /// The first piece in the request that opens the session, each further one in a request of its own.
    async fn requests(
        &mut self,
        way: &Way,
        start: Vec<u8>,
        sealer: Sealer,
        mut session: watch::Receiver<Option<SessionId>>,
    ) {
        let Some(Outgoing::Bytes(first)) = self.from_writer.recv().await else {
            return self.break_off().await;
        };
        let (mut content, mut out) = (Vec::new(), start);
        bhttp::content(&first, &mut content);
        content.extend_from_slice(&bhttp::END);
        if sealer.finish(&content, &mut out).is_err() {
            return self.break_off().await;
        }
        let mut offset = first.len() as u64;
        if self.body.send(Ok(out.into())).await.is_err() {
            return;
        }
        // The end of a request's body is the end of its sender.
        self.body = mpsc::channel(1).0;
        let Ok(id) = session.wait_for(Option::is_some).await.map(|id| *id) else { return };
        let Some(id) = id else { return };
        while let Some(Outgoing::Bytes(bytes)) = self.from_writer.recv().await {
            if append(way, id, offset, &bytes).await.is_err() {
                // The writer finds the channel closed.
                return;
            }
            offset += bytes.len() as u64;
        }
    }
}

/// Sends one piece to a session, in the form without chunks.
async fn append(way: &Way, id: SessionId, offset: u64, bytes: &[u8]) -> Result<(), TransportError> {
    let (mut out, sealer, exchange) =
        ClientExchange::start(&way.gateway, Form::Whole).map_err(|_| TransportError::Seal)?;
    let (id, offset) = (id.to_string(), offset.to_string());
    let mut message =
        bhttp::request_head("POST", "", APPEND, &[(SESSION_FIELD, &id), (OFFSET_FIELD, &offset)]);
    bhttp::content(bytes, &mut message);
    message.extend_from_slice(&bhttp::END);
    sealer.finish(&message, &mut out).map_err(|_| TransportError::Seal)?;
    let request = request(way, Form::Whole, whole(out))?;
    let response = way.client.request(request).await.map_err(|_| TransportError::Relay)?;
    let body = encapsulated(response, Form::Whole).await?;
    let answer = Limited::new(body, MAX_PROBLEM).collect().await.map_err(|_| TransportError::Truncated)?;
    let (mut plain, mut content) = (Vec::new(), Vec::new());
    let mut opener = exchange.response(MAX_PROBLEM as u64);
    opener.push(&answer.to_bytes(), &mut plain).map_err(transport)?;
    opener.finish(&mut plain).map_err(transport)?;
    let mut decoder = Decoder::response();
    decoder
        .push(&plain, &mut content)
        .and_then(|()| decoder.finish())
        .map_err(|_| TransportError::Malformed)?;
    match decoder.head().and_then(bhttp::Head::status) {
        Some(204) => Ok(()),
        Some(status) => Err(TransportError::Refused(status)),
        None => Err(TransportError::Malformed),
    }
}

fn transport(error: crate::ohttp::Error) -> TransportError {
    match error {
        crate::ohttp::Error::Truncated => TransportError::Truncated,
        _ => TransportError::Malformed,
    }
}

/// The body of an encapsulated answer; of another one, why there is none.
async fn encapsulated(response: Response<Incoming>, form: Form) -> Result<Incoming, TransportError> {
    let media_type = response.headers().get(CONTENT_TYPE);
    if response.status() == StatusCode::OK && media_type.is_some_and(|kind| kind == form.response_type()) {
        return Ok(response.into_body());
    }
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_PROBLEM).collect().await;
    // Anyone on the way can say this. All it does is that the key is looked up, and that only with its proof.
    let says =
        |bytes: &Bytes| bytes.windows(PROBLEM_KEY.len()).any(|window| window == PROBLEM_KEY.as_bytes());
    let stale = body.is_ok_and(|body| says(&body.to_bytes()));
    Err(if stale { TransportError::StaleKey } else { TransportError::Refused(status) })
}

/// Hands what the guest says to the reader, until all of it was whole.
async fn receive(
    response: Response<Incoming>,
    exchange: ClientExchange,
    to_reader: &mpsc::Sender<io::Result<Bytes>>,
    tell_session: &watch::Sender<Option<SessionId>>,
) -> Result<(), TransportError> {
    let mut body = encapsulated(response, Form::Chunked).await?;
    let mut message = Message { opener: exchange.response(MAX_CONTENT), decoder: Decoder::response() };
    let mut known = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| TransportError::Truncated)?;
        let Ok(bytes) = frame.into_data() else { continue };
        let content = message.push(&bytes)?;
        if !known && let Some(head) = message.decoder.head() {
            known = true;
            opened(head, tell_session)?;
        }
        if !content.is_empty() && to_reader.send(Ok(content.into())).await.is_err() {
            return Ok(());
        }
    }
    let (content, decoder) = message.finish()?;
    if !known {
        opened(decoder.head().ok_or(TransportError::Truncated)?, tell_session)?;
    }
    if !content.is_empty() {
        let _ = to_reader.send(Ok(content.into())).await;
    }
    Ok(())
}

/// What the answer's head says.
fn opened(head: &bhttp::Head, tell_session: &watch::Sender<Option<SessionId>>) -> Result<(), TransportError> {
    match head.status() {
        Some(200) => {}
        Some(status @ 401) => return Err(TransportError::Token(status)),
        Some(status @ 503) => return Err(TransportError::Unavailable(status)),
        Some(status) => return Err(TransportError::Refused(status)),
        None => return Err(TransportError::Malformed),
    }
    let id = head.field(SESSION_FIELD).and_then(SessionId::parse).ok_or(TransportError::Malformed)?;
    tell_session.send_replace(Some(id));
    Ok(())
}

/// An answer that is still arriving.
struct Message {
    opener: Opener,
    decoder: Decoder,
}

impl Message {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, TransportError> {
        let (mut plain, mut content) = (Vec::new(), Vec::new());
        self.opener.push(bytes, &mut plain).map_err(transport)?;
        self.decoder.push(&plain, &mut content).map_err(|_| TransportError::Malformed)?;
        Ok(content)
    }

    fn finish(self) -> Result<(Vec<u8>, Decoder), TransportError> {
        let Self { opener, mut decoder } = self;
        let (mut plain, mut content) = (Vec::new(), Vec::new());
        opener.finish(&mut plain).map_err(transport)?;
        decoder.push(&plain, &mut content).map_err(|_| TransportError::Malformed)?;
        decoder.finish().map_err(|_| TransportError::Truncated)?;
        Ok((content, decoder))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.is_empty() && !self.over {
            ready!(self.poll_piece(context))?;
        }
        let length = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..length]);
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let sent = ready!(self.sender.poll_reserve(context))
            .and_then(|()| self.sender.send_item(Outgoing::Bytes(Bytes::copy_from_slice(piece))));
        match sent {
            Ok(()) => Poll::Ready(Ok(piece.len())),
            Err(_) => self.poll_why(context).map(Err),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Each piece leaves by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who has ended already has nothing to end.
        if self.sender.is_closed() || ready!(self.sender.poll_reserve(context)).is_err() {
            return Poll::Ready(Ok(()));
        }
        let _ = self.sender.send_item(Outgoing::End);
        self.sender.close();
        Poll::Ready(Ok(()))
    }
}
