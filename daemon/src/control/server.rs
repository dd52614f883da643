//! The daemon's end of the control socket.
//!
//! Only root and the daemon's own user may connect. A client has a bounded line, a bounded
//! time to send it and to read its answer, and there are at most [`CLIENTS`] of them: one that
//! hangs costs a task, and never the daemon's loop. One that is gone has no place any more.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::ReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::protocol::{Reply, Request, SOCKET_NAME};
use crate::error::{ExitClass, Failure};

/// Clients served at once, those that wait for something among them; more wait in the socket's backlog.
const CLIENTS: usize = 256;
/// Requests hold two names; this leaves room for long ones.
const REQUEST_LIMIT: u64 = 16 * 1024;
/// How long a client may take to send a request, or to take a line of the reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a daemon that ends waits for its clients to take what it has told them.
const FAREWELL: Duration = Duration::from_secs(1);

/// A request, and the way back to whoever sent it.
pub(crate) struct Call {
    /// What is asked.
    pub(crate) request: Request,
    replies: mpsc::UnboundedSender<Reply>,
}

impl Call {
    /// Sends a reply. A client that went away is no failure.
    pub(crate) fn reply(&self, reply: Reply) {
        let _ = self.replies.send(reply);
    }

    /// Whether the client went away.
    pub(crate) fn is_over(&self) -> bool {
        self.replies.is_closed()
    }
}

/// The listening socket; its file goes when this is dropped.
pub(crate) struct Server {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
    places: Arc<Semaphore>,
}

impl Server {
    /// Listens in `runtime_dir`, and hands requests to `calls`. The caller holds the lock of
    /// that directory, so a socket that is there already is a dead daemon's.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen(runtime_dir: &Path, calls: mpsc::Sender<Call>) -> io::Result<Self> {
        let path = runtime_dir.join(SOCKET_NAME);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let places = Arc::new(Semaphore::new(CLIENTS));
        let task = tokio::spawn(accept(listener, calls, places.clone()));
        Ok(Self { path, task, places })
    }

    /// Nobody is served any more. Whoever was told something has a second to take it.
    pub(crate) async fn end(self) {
        self.task.abort();
        let all = self.places.acquire_many(CLIENTS as u32);
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Err(e) = serve(stream, calls).await {
                        debug!(error = %e, "control client");
                    }
                    drop(place);
                });
            }
            Err(e) => {
                warn!(error = %e, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        let denied = Failure::new(ExitClass::NotPermitted, "only root may command this daemon");
        return send(&mut stream, &denied.into()).await;
    }
    let (mut reader, mut writer) = stream.split();
    let line = tokio::time::timeout(PATIENCE, read_line(&mut reader)).await??;
    let request = match Request::from_line(&line) {
        Ok(request) => request,
        Err(failure) => return send(&mut writer, &failure.into()).await,
    };
    let (replies, mut answers) = mpsc::unbounded_channel();
    if calls.send(Call { request, replies }).await.is_err() {
        let gone = Failure::new(ExitClass::NotRunning, "the daemon is stopping");
        return send(&mut writer, &gone.into()).await;
    }
    let gone = gone(&mut reader);
    tokio::pin!(gone);
    loop {
        tokio::select! {
            biased;
            reply = answers.recv() => match reply {
                Some(reply) => send(&mut writer, &reply).await?,
                None => return Ok(()),
            },
            () = &mut gone => return Ok(()),
        }
    }
}

/// Waits until the client is no more. One that has only nothing more to say may listen all the same.
async fn gone(reader: &mut ReadHalf<'_>) {
    let mut more = [0; 512];
    while reader.read(&mut more).await.is_ok_and(|octets| octets > 0) {}
    let ready = reader.ready(Interest::WRITABLE).await;
    if ready.is_ok_and(|ready| !ready.is_write_closed()) {
        std::future::pending().await
    }
}

async fn read_line(reader: impl tokio::io::AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(reader.take(REQUEST_LIMIT))
        .read_until(b'\n', &mut line)
        .await?;
    Ok(line)
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let line = Zeroizing::new(reply.to_line());
    tokio::time::timeout(PATIENCE, writer.write_all(line.as_bytes())).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(path: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.expect("a listening server");
        stream.write_all(bytes).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        // A server that closes with octets unread resets the connection, after its answer.
        match stream.read_to_end(&mut answer).await {
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("no answer: {e}"),
            _ => String::from_utf8(answer).expect("an answer in text"),
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_and_garbage_is_refused() {
        let dir = std::env::temp_dir().join(format!("obol-control-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (calls, mut inbox) = mpsc::channel::<Call>(1);
        let server = Server::listen(&dir, calls).expect("listening");
        tokio::spawn(async move {
            while let Some(call) = inbox.recv().await {
                assert_eq!(call.request, Request::Status);
                call.reply(Reply::Progress("soon".into()));
                call.reply(Reply::done(&7));
            }
        });
        let path = dir.join(SOCKET_NAME);
        let mode = std::fs::metadata(&path)
            .expect("a socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let answer = ask(&path, Request::Status.to_line().as_bytes()).await;
        let lines: Vec<&str> = answer.lines().collect();
        assert_eq!(lines.len(), 2, "{answer}");
        assert_eq!(Reply::from_line(lines[1].as_bytes()), Ok(Reply::done(&7)));
        let refused = ask(&path, b"{\"version\":1,\"command\":\"fly\"}\n").await;
        assert!(refused.contains("\"ok\":false"), "{refused}");
        let endless = ask(&path, &vec![b'x'; 20_000]).await;
        assert!(endless.contains("\"ok\":false"), "{endless}");
        drop(server);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }

    #[tokio::test]
    async fn ctl_socket_length_lies() {
        let dir = std::env::temp_dir().join(format!("obol-control-lies-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (calls, mut inbox) = mpsc::channel::<Call>(1);
        let server = Server::listen(&dir, calls).expect("listening");
        tokio::spawn(async move {
            while let Some(call) = inbox.recv().await {
                call.reply(Reply::done(&7));
            }
        });
        let path = dir.join(SOCKET_NAME);
        let good = Request::Status.to_line();
        let up = |timeout: &str| {
            let command = r#""command":"up","connection":"c","child":null"#;
            format!("{{\"version\":1,{command},\"timeout_ms\":{timeout}}}\n").into_bytes()
        };
        let limit = usize::try_from(REQUEST_LIMIT).expect("small");
        let within = |len: usize| {
            let name = "x".repeat(len);
            format!("{{\"version\":1,\"command\":\"redirect\",\"connection\":\"{name}\"")
        };
        let refused: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"\n".to_vec(),
            b"\0\0\0\0".to_vec(),
            // What another protocol would take for a length.
            [&[0xff; 8][..], good.as_bytes()].concat(),
            [&[0, 0, 0, 4][..], good.as_bytes()].concat(),
            good.as_bytes()[..good.len() / 2].to_vec(),
            vec![b'x'; limit],
            vec![b'x'; limit + 1],
            vec![b'['; limit - 1],
            within(limit * 2).into_bytes(),
            [within(10).as_bytes(), &[0xff, 0xfe, b'"', b'}', b'\n']].concat(),
            up("-1"),
            up("1e999"),
            up("18446744073709551616"),
            up("\"10\""),
        ];
        for request in refused {
            let answer = ask(&path, &request).await;
            assert!(answer.contains("\"ok\":false"), "{request:?}: {answer}");
            assert_eq!(answer.lines().count(), 1, "{request:?}: {answer}");
        }
        // What comes after the line is none of it, and the longest time is a time.
        for request in [
            [good.as_bytes(), &vec![b'x'; 100_000]].concat(),
            up("18446744073709551615"),
        ] {
            let answer = ask(&path, &request).await;
            assert!(answer.contains("\"ok\":true"), "{answer}");
        }
        // Who sends nothing takes a place, and no more than that.
        let idle: Vec<UnixStream> =
            futures_util::future::join_all((1..CLIENTS).map(|_| UnixStream::connect(path.clone())))
                .await
                .into_iter()
                .collect::<io::Result<_>>()
                .expect("connected");
        assert!(ask(&path, good.as_bytes()).await.contains("\"ok\":true"));
        drop(idle);
        drop(server);
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }

    #[tokio::test]
    async fn clients_that_are_gone_have_no_place() {
        let dir = std::env::temp_dir().join(format!("obol-control-gone-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (calls, mut inbox) = mpsc::channel::<Call>(1);
        let server = Server::listen(&dir, calls).expect("listening");
        let path = dir.join(SOCKET_NAME);
        let up =
            br#"{"version":1,"command":"up","connection":"c","child":null,"timeout_ms":1000000}"#;
        let mut waiting = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = UnixStream::connect(&path)
                .await
                .expect("a listening server");
            client.write_all(up).await.expect("sent");
            client.write_all(b"\n").await.expect("sent");
            waiting.push((client, inbox.recv().await.expect("a call")));
        }
        let (clients, held): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        assert!(held.iter().all(|call| !call.is_over()));
        drop(clients);
        tokio::spawn(async move {
            while let Some(call) = inbox.recv().await {
                call.reply(Reply::done(&7));
            }
        });
        let request = Request::Status.to_line();
        let answer = ask(&path, request.as_bytes());
        let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
        assert!(answer.is_ok_and(|answer| answer.contains("\"ok\":true")));
        assert!(held.iter().all(Call::is_over));
        drop(server);
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }

    #[test]
    fn what_was_said_last_arrives() {
        let dir = std::env::temp_dir().join(format!("obol-control-last-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut client = runtime.block_on(async {
            let (calls, mut inbox) = mpsc::channel::<Call>(1);
            let server = Server::listen(&dir, calls).expect("listening");
            let path = dir.join(SOCKET_NAME);
            let mut client = std::os::unix::net::UnixStream::connect(path).expect("connected");
            let line = Request::Status.to_line();
            io::Write::write_all(&mut client, line.as_bytes()).expect("sent");
            let call = inbox.recv().await.expect("a call");
            call.reply(Reply::done(&7));
            drop((call, inbox));
            server.end().await;
            client
        });
        drop(runtime);
        let mut answer = String::new();
        io::Read::read_to_string(&mut client, &mut answer).expect("the socket is closed");
        assert!(answer.contains("\"ok\":true"), "{answer}");
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }
}
