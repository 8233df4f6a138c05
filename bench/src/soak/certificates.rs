//! Certificates that are replaced while clients shake hands all the time.

use std::fs;
use std::io::{Error, Result};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, StreamOwned};

use super::server::{Server, pause, release};
use super::{claim, quantile};
use crate::load::{Peers, read_certificate, trusting};
use crate::target::make_certificate;

/// Time between two handshakes: fifty in a second.
const TURN: Duration = Duration::from_millis(20);
/// A new certificate has to be shown after this long.
const SHOWN_MAX: Duration = Duration::from_secs(1);
/// Time from one certificate to the next, a little more than the above.
const ROTATION: Duration = Duration::from_millis(1200);
/// Longer than a busy machine takes for anything.
const PATIENCE: Duration = Duration::from_secs(60);

type Certificate = CertificateDer<'static>;

pub(crate) fn run(quick: bool) -> Result<()> {
    let count = if quick { 10 } else { 100 };
    println!("{count} new certificates while fifty clients a second shake hands\n");
    let pairs = Pairs::begin()?;
    let tls = format!(
        "tls = true\n[tls]\ncertificate = {:?}\nprivate_key = {:?}",
        pairs.live("cert.pem"),
        pairs.live("key.pem")
    );
    let echo = release().join("libecho_wsh.so");
    let server = Server::start(&[&echo], &tls)?;
    let first = pairs.certificate()?;
    let crowd = Crowd::new(server.address(), first);
    let mut kept = Peers::connect_trusting(server.address(), "/echo", 1, &pairs.live("cert.pem"))?;

    let began = Instant::now();
    let mut shown_after = Vec::new();
    let failed = std::thread::scope(|scope| -> Result<Vec<String>> {
        let talk = scope.spawn(|| crowd.shake_hands_until_told());
        let rotated = (0..count).try_for_each(|number| {
            let new = pairs.make()?;
            crowd.trust_too(new.certificate.clone());
            let began = Instant::now();
            pairs.put(new.folder.path(), number)?;
            let shown = crowd.wait_until_shown(&new.certificate, began)?;
            shown_after.push(shown.as_millis() as u64);
            kept.echo_once(64)?;
            pause(ROTATION.saturating_sub(began.elapsed()));
            Ok(())
        });
        crowd.is_over.store(true, Ordering::Relaxed);
        let failed = talk.join().expect("it does not panic");
        rotated.map(|()| failed)
    })?;

    let handshakes = crowd.handshakes.load(Ordering::Relaxed);
    let rate = handshakes as f64 / began.elapsed().as_secs_f64();
    shown_after.sort_unstable();
    let worst = quantile(&shown_after, 1.0);
    println!("  {handshakes} handshakes, {rate:.1} a second");
    println!("  a new certificate was shown after {} ms, at most {worst}", quantile(&shown_after, 0.5));
    claim("handshakes that failed", failed.is_empty(), format!("{} {}", failed.len(), failed.join("; ")))?;
    claim("certificates that were shown", shown_after.len() == count, shown_after.len())?;
    claim("a connection from before all of them echoes after each", true, "yes")?;
    // What a busy machine takes says nothing; it is measured where there is time for it.
    let in_time = quick || u128::from(worst) <= SHOWN_MAX.as_millis();
    claim("shown within a second (claimed of the long run)", in_time, format!("{worst} ms"))
}

/// Where pairs are made, and where the server finds the one it is to show: behind a link, as tools for renewal do it.
struct Pairs {
    folder: tempfile::TempDir,
}

struct Made {
    folder: tempfile::TempDir,
    certificate: Certificate,
}

impl Pairs {
    fn begin() -> Result<Self> {
        let pairs = Self { folder: tempfile::tempdir()? };
        for name in ["even", "odd"] {
            let folder = pairs.folder.path().join(name);
            fs::create_dir(&folder)?;
            make_pair(&folder)?;
        }
        symlink("even", pairs.folder.path().join("live"))?;
        Ok(pairs)
    }

    fn live(&self, name: &str) -> PathBuf {
        self.folder.path().join("live").join(name)
    }

    fn certificate(&self) -> Result<Certificate> {
        read_certificate(&self.live("cert.pem"))
    }

    fn make(&self) -> Result<Made> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        make_pair(folder.path())?;
        let certificate = read_certificate(&folder.path().join("cert.pem"))?;
        Ok(Made { folder, certificate })
    }

    /// Puts a new pair in the place of the old one, each time in another way.
    fn put(&self, new: &Path, number: usize) -> Result<()> {
        let put = |name: &str| fs::rename(new.join(name), self.live(name));
        match number % 3 {
            0 => put("key.pem").and_then(|()| put("cert.pem")),
            1 => put("cert.pem").and_then(|()| put("key.pem")),
            _ => {
                let live = self.folder.path().join("live");
                let other = if fs::read_link(&live)?.ends_with("even") { "odd" } else { "even" };
                for name in ["cert.pem", "key.pem"] {
                    fs::rename(new.join(name), self.folder.path().join(other).join(name))?;
                }
                let link = self.folder.path().join("next");
                symlink(other, &link)?;
                fs::rename(link, live)
            }
        }
    }
}

fn make_pair(folder: &Path) -> Result<()> {
    make_certificate(&release().join("wshd"), folder)
}

/// Clients that shake hands one after another, each in full, and go.
struct Crowd {
    address: SocketAddr,
    /// The certificate that was shown last and the one that is to come: a client takes either.
    trusted: Mutex<Vec<Certificate>>,
    /// What the newest client was shown, and when it began.
    shown: Mutex<Option<(Instant, Certificate)>>,
    handshakes: AtomicUsize,
    is_over: AtomicBool,
}

impl Crowd {
    fn new(address: SocketAddr, certificate: Certificate) -> Self {
        Self {
            address,
            trusted: Mutex::new(vec![certificate]),
            shown: Mutex::default(),
            handshakes: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    fn trust_too(&self, certificate: Certificate) {
        let mut trusted = self.trusted.lock().expect("nobody panics with it");
        if trusted.len() == 2 {
            trusted.remove(0);
        }
        trusted.push(certificate);
    }

    /// What failed, in words.
    fn shake_hands_until_told(&self) -> Vec<String> {
        let mut failed = Vec::new();
        let mut turn = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            match self.shake_hands() {
                Ok(certificate) => {
                    *self.shown.lock().expect("nobody panics with it") = Some((began, certificate));
                }
                Err(error) => failed.push(error.to_string()),
            }
            self.handshakes.fetch_add(1, Ordering::Relaxed);
            turn += TURN;
            pause(turn.saturating_duration_since(Instant::now()));
        }
        failed
    }

    /// Returns the certificate that was shown. One that is not trusted fails.
    fn shake_hands(&self) -> Result<Certificate> {
        let config = trusting(self.trusted.lock().expect("nobody panics with it").iter().cloned())?;
        let name = ServerName::try_from("localhost").expect("it is a name");
        let connection = ClientConnection::new(config, name).map_err(Error::other)?;
        let socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
        shown.cloned().map(Certificate::into_owned).ok_or_else(|| Error::other("no certificate was shown"))
    }

    /// Waits until a client is shown this one; returns how long after `began` that client came.
    fn wait_until_shown(&self, certificate: &Certificate, began: Instant) -> Result<Duration> {
        while began.elapsed() < PATIENCE {
            if let Some((at, shown)) = &*self.shown.lock().expect("nobody panics with it")
                && shown == certificate
            {
                return Ok(at.saturating_duration_since(began));
            }
            pause(Duration::from_millis(2));
        }
        Err(Error::other(format!("a new certificate is not shown after {PATIENCE:?}")))
    }
}
