//! Asking a running daemon over its control socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::control::protocol::{Data, LINE_LIMIT, Reply, Request, SOCKET_NAME};
use crate::error::{ExitClass, Failure};

/// How much longer than the daemon itself waits we wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a request and waits for the end of the exchange; progress goes to `progress`.
///
/// # Errors
/// No daemon, no right to ask it, or what the daemon answered.
pub(crate) fn ask(
    runtime_dir: &Path,
    request: &Request,
    mut progress: impl FnMut(&str),
) -> Result<Data, Failure> {
    let mut stream = connect(runtime_dir)?;
    let broken = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Failure::new(ExitClass::Failed, "the daemon does not answer")
        }
        _ => Failure::system("the daemon went away", &e),
    };
    stream
        .set_read_timeout(Some(waits(request) + PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(request.to_line().as_bytes()))
        .map_err(broken)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        reader
            .by_ref()
            .take(LINE_LIMIT as u64)
            .read_until(b'\n', &mut line)
            .map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(Failure::new(
                ExitClass::Failed,
                "the daemon ended before it had answered",
            ));
        }
        match Reply::from_line(&line)? {
            Reply::Progress(text) => progress(&text),
            Reply::Secret(_) => {}
            Reply::Done(data) => return Ok(data),
            Reply::Failed(failure) => return Err(failure),
        }
    }
}

/// Whether a daemon listens there.
///
/// # Errors
/// It cannot be known, for lack of rights.
pub(crate) fn is_running(runtime_dir: &Path) -> Result<bool, Failure> {
    match connect(runtime_dir) {
        Ok(_) => Ok(true),
        Err(failure) if failure.code == ExitClass::NotRunning => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn connect(runtime_dir: &Path) -> Result<UnixStream, Failure> {
    let path = runtime_dir.join(SOCKET_NAME);
    UnixStream::connect(&path).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(
            ExitClass::NotRunning,
            format!(
                "no daemon runs at {}: start it with obol run, or name its --runtime-dir",
                runtime_dir.display()
            ),
        ),
        ErrorKind::PermissionDenied => Failure::new(
            ExitClass::NotPermitted,
            format!("no right to use {}: be root", path.display()),
        ),
        _ => Failure::system(format!("cannot connect to {}", path.display()), &e),
    })
}

/// How long the daemon itself may take.
fn waits(request: &Request) -> Duration {
    match request {
        Request::Up { timeout_ms, .. } | Request::Down { timeout_ms, .. } => {
            Duration::from_millis(*timeout_ms)
        }
        // As long as nobody interrupts it.
        Request::Watch => Duration::from_secs(86_400 * 365),
        Request::Status
        | Request::List
        | Request::Overview { .. }
        | Request::Keys
        | Request::Establish { .. }
        | Request::CloseSa(_)
        | Request::Rekey { .. }
        | Request::Psks
        | Request::Reload
        | Request::Listen
        | Request::Secrets
        | Request::Change { .. }
        | Request::Redirect { .. } => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A directory of its own with a server that answers one request with these octets.
    fn server(name: &str, answer: &'static [u8]) -> (std::path::PathBuf, impl FnOnce() -> Vec<u8>) {
        let directory =
            std::env::temp_dir().join(format!("obol-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join(SOCKET_NAME)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            BufReader::new(&stream)
                .read_until(b'\n', &mut request)
                .unwrap();
            stream.write_all(answer).unwrap();
            request
        });
        let path = directory.clone();
        (directory, move || {
            let request = server.join().unwrap();
            std::fs::remove_dir_all(path).unwrap();
            request
        })
    }

    #[test]
    fn progress_then_the_answer() {
        let (directory, finish) = server(
            "progress",
            b"{\"version\":1,\"progress\":\"one\"}\n{\"version\":1,\"ok\":true,\"data\":[7]}\n",
        );
        let mut seen = Vec::new();
        let data = ask(&directory, &Request::List, |text| {
            seen.push(text.to_owned())
        });
        assert_eq!(data.unwrap().read(), Ok([7]));
        assert_eq!(seen, ["one"]);
        assert_eq!(finish(), Request::List.to_line().into_bytes());
    }

    #[test]
    fn the_daemons_exit_class_is_ours() {
        let (directory, finish) = server(
            "refused",
            b"{\"version\":1,\"ok\":false,\"code\":4,\"error\":\"no\"}\n",
        );
        let failure = ask(&directory, &Request::Status, |_| ()).unwrap_err();
        assert_eq!(failure, Failure::new(ExitClass::Refused, "no"));
        finish();
    }

    #[test]
    fn half_an_answer_is_a_failure() {
        let (directory, finish) = server("half", b"{\"version\":1,\"ok\":true}");
        let failure = ask(&directory, &Request::Status, |_| ()).unwrap_err();
        assert_eq!(failure.code, ExitClass::Failed);
        finish();
    }

    #[test]
    fn no_daemon_is_exit_code_3() {
        let failure = ask(Path::new("/nonexistent/obol"), &Request::Status, |_| ()).unwrap_err();
        assert_eq!(failure.code, ExitClass::NotRunning);
    }
}
