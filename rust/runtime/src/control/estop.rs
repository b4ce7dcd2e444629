//! Emergency stops from elsewhere than the robot: a line, a datagram, a button of an input device.
//!
//! One thread waits for all of them and sets flags, which the loop reads at each tick: no lock and no system call there.
//! A source that goes away counts as pressed, and so does a thread that ends, panics or hangs: nobody would hear a press.
//!
//! | source | presses | releases |
//! |---|---|---|
//! | `stdin` | any line but `release`, and its end | the line `release` |
//! | `udp:PORT` | the datagram `STOP` | the datagram `RELEASE` |
//! | `evdev:NAME` | any key or button going down, the device going away | it going up |

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::RunError;
use crate::robot::EstopSource;

/// Longest wait between two looks at whether the run is over, ms.
const LOOK_MS: libc::c_int = 50;
/// How long the thread may not have looked at its sources until that counts as pressed.
const DEAF: Duration = Duration::from_secs(1);
/// What a longer pause of the loop itself counts as: whatever stopped it, a debugger or the shell, stopped the thread too.
const PAUSE: Duration = Duration::from_millis(50);
/// Where the system lists its input devices.
const INPUTS: &str = "/sys/class/input";

#[derive(Debug, Default)]
struct Flags {
    /// Some source is pressed now.
    down: AtomicBool,
    /// One has been since the loop last looked: a short press is not missed between two ticks.
    touched: AtomicBool,
    /// How often the thread has looked at its sources.
    looks: AtomicU32,
}

/// The loop's end.
#[derive(Debug)]
pub struct Button {
    flags: Arc<Flags>,
    looks: u32,
    asked: Instant,
    /// For how long the thread has not looked.
    deaf: Duration,
}

impl Button {
    fn new(flags: Arc<Flags>) -> Self {
        Self { flags, looks: 0, asked: Instant::now(), deaf: Duration::ZERO }
    }

    /// Whether a source is pressed, or has been since the last call, or nobody hears them.
    pub fn pressed(&mut self) -> bool {
        let (looks, now) = (self.flags.looks.load(Ordering::Relaxed), Instant::now());
        let since = now.duration_since(std::mem::replace(&mut self.asked, now)).min(PAUSE);
        let heard = std::mem::replace(&mut self.looks, looks) != looks;
        self.deaf = if heard { Duration::ZERO } else { self.deaf.saturating_add(since) };
        let touched = self.flags.touched.swap(false, Ordering::Relaxed);
        touched | self.flags.down.load(Ordering::Relaxed) | (self.deaf > DEAF)
    }
}

/// Presses when it is dropped before the run is over: the thread has ended or panicked.
struct Listening {
    flags: Arc<Flags>,
    over: Arc<AtomicBool>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if !self.over.load(Ordering::Relaxed) {
            self.flags.down.store(true, Ordering::Release);
        }
    }
}

/// The sources of a run. Ends its thread when dropped.
#[derive(Debug)]
pub struct Estops {
    flags: Arc<Flags>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One source as the thread sees it.
struct Source {
    ear: Box<dyn Hear>,
    pressed: bool,
    gone: bool,
}

/// A kind of source.
trait Hear: Send {
    /// What becomes readable when there is something to hear.
    fn fd(&self) -> RawFd;
    /// Takes what has come, in order. Returns false when the source is gone.
    fn hear(&mut self, press: &mut dyn FnMut(bool)) -> bool;
}

struct Lines(File, Vec<u8>);

struct Datagrams(UdpSocket);

struct Keys(File);

impl Estops {
    /// Opens what `sources` names beside the device; nothing when there is nothing else.
    ///
    /// # Errors
    /// [`RunError::Estop`] with what the system says, for an input device with the names that there are.
    pub fn open(sources: &[EstopSource]) -> Result<Option<Self>, RunError> {
        let opened =
            sources.iter().filter_map(|source| open(source).transpose()).collect::<Result<Vec<_>, _>>()?;
        if opened.is_empty() { Ok(None) } else { Self::listen(opened).map(Some) }
    }

    /// Lines of `file` are the only source.
    ///
    /// # Errors
    /// [`RunError::Estop`]
    pub fn lines(file: File) -> Result<Self, RunError> {
        Self::listen(vec![Source::new(Lines(file, Vec::new()))])
    }

    /// What the loop looks at.
    pub fn button(&self) -> Button {
        Button::new(self.flags.clone())
    }

    /// Whether a source is pressed now.
    pub fn is_down(&self) -> bool {
        self.flags.down.load(Ordering::Acquire)
    }

    fn listen(mut sources: Vec<Source>) -> Result<Self, RunError> {
        let (flags, stop) = (Arc::<Flags>::default(), Arc::<AtomicBool>::default());
        let listening = Listening { flags: flags.clone(), over: stop.clone() };
        let thread = std::thread::Builder::new().name("cadenza-estop".into()).spawn(move || {
            crate::timing::sched::unpin();
            while !listening.over.load(Ordering::Relaxed) {
                wait(&mut sources, &listening.flags);
            }
        });
        let thread =
            thread.map_err(|e| RunError::Estop { source_name: "thread".into(), what: e.to_string() })?;
        Ok(Self { flags, stop, thread: Some(thread) })
    }
}

impl Drop for Estops {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(source: &EstopSource) -> Result<Option<Source>, RunError> {
    let name = source.to_string();
    let refuse = |what: String| RunError::Estop { source_name: name.clone(), what };
    Ok(Some(match source {
        EstopSource::Device => return Ok(None),
        EstopSource::Stdin => {
            // SAFETY: the standard input's number; the copy is ours to close.
            let fd = unsafe { libc::dup(libc::STDIN_FILENO) };
            if fd < 0 {
                return Err(refuse(std::io::Error::last_os_error().to_string()));
            }
            // SAFETY: `dup` has just made it, and nobody else owns it.
            Source::new(Lines(File::from(unsafe { OwnedFd::from_raw_fd(fd) }), Vec::new()))
        }
        EstopSource::Udp(address) => {
            let socket = UdpSocket::bind(address).and_then(|s| s.set_nonblocking(true).map(|()| s));
            Source::new(Datagrams(socket.map_err(|e| refuse(format!("{address}: {e}")))?))
        }
        EstopSource::Evdev(wanted) => Source::new(Keys(input(Path::new(INPUTS), wanted).map_err(refuse)?)),
    }))
}

/// The input device called `wanted`, as `/sys/class/input/eventN/device/name` has it.
fn input(folder: &Path, wanted: &str) -> Result<File, String> {
    let mut known = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let event = entry.file_name();
        let Ok(name) = std::fs::read_to_string(entry.path().join("device/name")) else { continue };
        if name.trim_end() == wanted {
            let path = Path::new("/dev/input").join(event);
            return File::open(&path).map_err(|e| format!("{}: {e}", path.display()));
        }
        known.push(name.trim_end().to_owned());
    }
    known.sort();
    Err(match known.is_empty() {
        true => "there is no input device".into(),
        false => format!("there is no such input device; there are: {}", known.join(", ")),
    })
}

/// Waits for the sources and takes what they say.
fn wait(sources: &mut [Source], flags: &Flags) {
    flags.looks.fetch_add(1, Ordering::Relaxed);
    let fds = sources.iter().filter(|s| !s.gone).map(|s| s.ear.fd());
    let mut polls: Vec<libc::pollfd> =
        fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: `polls` is a valid array of that length for the whole call.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, LOOK_MS) };
    let interrupted = || std::io::Error::last_os_error().kind() == ErrorKind::Interrupted;
    if ready < 0 && !interrupted() {
        // Nothing can be heard any more, so everything is pressed; the pause that poll did not make is made here.
        sources.iter_mut().for_each(|s| (s.pressed, s.gone) = (true, true));
        std::thread::sleep(PAUSE);
    }
    let mut touched = false;
    for (source, poll) in sources.iter_mut().filter(|s| !s.gone).zip(&polls) {
        if poll.revents != 0 {
            touched |= source.hear();
        }
    }
    // In this order: who sees no press any more has seen the touch.
    if touched {
        flags.touched.store(true, Ordering::Relaxed);
    }
    flags.down.store(sources.iter().any(|s| s.pressed), Ordering::Release);
}

impl Source {
    fn new(ear: impl Hear + 'static) -> Self {
        Self { ear: Box::new(ear), pressed: false, gone: false }
    }

    /// Takes what has come. Returns whether it was pressed, however shortly.
    fn hear(&mut self) -> bool {
        let mut touched = false;
        let mut press = |down: bool| {
            touched |= down;
            self.pressed = down;
        };
        self.gone = !self.ear.hear(&mut press);
        if self.gone {
            press(true);
        }
        touched
    }
}

impl Hear for Lines {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn hear(&mut self, press: &mut dyn FnMut(bool)) -> bool {
        let Self(file, line) = self;
        let mut bytes = [0; 256];
        let Ok(len @ 1..) = file.read(&mut bytes) else { return false };
        for &byte in &bytes[..len] {
            if byte == b'\n' {
                press(line.trim_ascii() != b"release");
                line.clear();
            } else if line.len() < 64 {
                line.push(byte);
            }
        }
        true
    }
}

impl Hear for Datagrams {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn hear(&mut self, press: &mut dyn FnMut(bool)) -> bool {
        let mut datagram = [0; 64];
        loop {
            match self.0.recv_from(&mut datagram).map(|(len, _)| datagram[..len].trim_ascii()) {
                Ok(b"STOP") => press(true),
                Ok(b"RELEASE") => press(false),
                Ok(_) => {}
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
    }
}

impl Hear for Keys {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn hear(&mut self, press: &mut dyn FnMut(bool)) -> bool {
        const SIZE: usize = size_of::<libc::input_event>();
        /// Type of the events of keys and buttons.
        const EV_KEY: u16 = 1;
        let mut bytes = [0; 16 * SIZE];
        let Ok(len @ 1..) = self.0.read(&mut bytes) else { return false };
        for event in bytes[..len].chunks_exact(SIZE) {
            // Time stamp first; then type and code of two bytes each and a value of four.
            let tail: [u8; 8] = std::array::from_fn(|i| event[SIZE - 8 + i]);
            let kind = u16::from_ne_bytes([tail[0], tail[1]]);
            match (kind, i32::from_ne_bytes([tail[4], tail[5], tail[6], tail[7]])) {
                (EV_KEY, 1) => press(true),
                (EV_KEY, 0) => press(false),
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;

    use super::*;

    fn pipe() -> (File, File) {
        let mut fds = [0; 2];
        // SAFETY: an array of two, as `pipe` wants.
        assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
        // SAFETY: both are new and ours.
        fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) })).into()
    }

    /// Waits for `pressed`; the bound is for a stopped machine only.
    fn until(button: &mut Button, pressed: bool) {
        let begin = Instant::now();
        while button.pressed() != pressed {
            assert!(begin.elapsed() < Duration::from_secs(30), "{pressed}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_line_presses_another_releases_and_the_end_presses() {
        let (read, mut write) = pipe();
        let estops = Estops::lines(read).unwrap();
        let mut button = estops.button();
        assert!(!button.pressed());
        write.write_all(b"\n").unwrap();
        until(&mut button, true);
        write.write_all(b"rele").unwrap();
        write.write_all(b"ase\n").unwrap();
        until(&mut button, false);
        write.write_all(b"stop\nrelease\n").unwrap();
        until(&mut button, true);
        until(&mut button, false);
        drop(write);
        until(&mut button, true);
        assert!(button.pressed() && button.pressed(), "for good");
    }

    #[test]
    fn datagrams_press_and_release() {
        let sources = ["device", "udp:127.0.0.1:0"].map(|s| s.parse().unwrap());
        assert!(Estops::open(&sources[..1]).unwrap().is_none(), "the device needs no thread");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = socket.local_addr().unwrap();
        let estops = Estops::listen(vec![Source::new(Datagrams(socket))]).unwrap();
        let (mut button, sender) = (estops.button(), UdpSocket::bind("127.0.0.1:0").unwrap());
        sender.send_to(b"hello", to).unwrap();
        sender.send_to(b"STOP", to).unwrap();
        until(&mut button, true);
        sender.send_to(b"RELEASE\n", to).unwrap();
        until(&mut button, false);
        let taken = format!("udp:{to}").parse().unwrap();
        let error = Estops::open(&[taken]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("safety.estop udp:{to}: ")), "{error}");
    }

    #[test]
    fn keys_press_while_they_are_down_and_a_device_that_goes_away_presses() {
        let event = |kind: u16, value: i32| {
            let mut bytes = [0; size_of::<libc::input_event>()];
            let at = bytes.len() - 8;
            bytes[at..at + 2].copy_from_slice(&kind.to_ne_bytes());
            bytes[at + 4..].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        let (read, mut write) = pipe();
        let estops = Estops::listen(vec![Source::new(Keys(read))]).unwrap();
        let mut button = estops.button();
        write.write_all(&[event(1, 1), event(0, 0), event(4, 7)].concat()).unwrap();
        until(&mut button, true);
        assert!(button.pressed(), "as long as it is down");
        write.write_all(&event(1, 0)).unwrap();
        until(&mut button, false);
        drop(write);
        until(&mut button, true);
    }

    /// Does something else than hear.
    struct Broken<F>(File, F);

    impl<F: FnMut() -> bool + Send> Hear for Broken<F> {
        fn fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }

        fn hear(&mut self, _: &mut dyn FnMut(bool)) -> bool {
            (self.1)()
        }
    }

    #[test]
    fn a_thread_that_panics_presses_for_good() {
        let (read, mut write) = pipe();
        let estops = Estops::listen(vec![Source::new(Broken(read, || panic!("a bug in a source")))]).unwrap();
        let mut button = estops.button();
        assert!(!button.pressed());
        write.write_all(b"x").unwrap();
        until(&mut button, true);
        // Where its backtrace is printed, the thread is deaf for a while before it is gone.
        while !estops.is_down() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(button.pressed() && button.pressed(), "for good");
    }

    #[test]
    fn a_thread_that_hangs_presses_until_it_hears_again() {
        let (read, mut write) = pipe();
        let (release, hang) = mpsc::channel::<()>();
        let ear = Broken(read.try_clone().unwrap(), move || {
            let _ = hang.recv_timeout(Duration::from_secs(60));
            (&read).read(&mut [0]).is_ok()
        });
        let estops = Estops::listen(vec![Source::new(ear)]).unwrap();
        let mut button = estops.button();
        write.write_all(b"x").unwrap();
        until(&mut button, true);
        assert!(!estops.is_down(), "no source says so");
        release.send(()).unwrap();
        until(&mut button, false);
        drop(release);
    }

    #[test]
    fn a_pause_of_the_loop_itself_presses_nothing() {
        let mut button = Button::new(Arc::default());
        button.asked = Instant::now().checked_sub(Duration::from_secs(60)).expect("a machine that is up");
        assert!(!button.pressed());
        assert!(button.deaf <= PAUSE);
    }

    #[test]
    fn an_input_device_that_is_not_there_is_refused_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        for (event, name) in [("event0", "Power Button\n"), ("event3", "Foot Pedal\n")] {
            std::fs::create_dir_all(dir.path().join(event).join("device")).unwrap();
            std::fs::write(dir.path().join(event).join("device/name"), name).unwrap();
        }
        let error = input(dir.path(), "Red Button").unwrap_err();
        assert_eq!(error, "there is no such input device; there are: Foot Pedal, Power Button");
        assert_eq!(input(&dir.path().join("none"), "Red").unwrap_err(), "there is no input device");
    }

    #[test]
    fn sources_have_one_spelling() {
        for text in ["device", "stdin", "udp:127.0.0.1:5005", "udp:0.0.0.0:5005", "evdev:Foot Pedal"] {
            assert_eq!(text.parse::<EstopSource>().unwrap().to_string(), text);
        }
        assert_eq!("udp:5005".parse::<EstopSource>(), "udp:127.0.0.1:5005".parse());
        for text in ["", "udp", "udp:", "udp:70000", "udp:host:5", "evdev:", "stdin:1", "serial:0"] {
            assert!(text.parse::<EstopSource>().is_err(), "{text}");
        }
    }
}
