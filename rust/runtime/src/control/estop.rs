//! Emergency stops from elsewhere than the robot: a line, a datagram, a button of an input device.
//!
//! One thread waits for all of them and sets two flags, which the loop reads at each tick: no lock and no system call
//! there. A source that goes away counts as pressed.
//!
//! | source | presses | releases |
//! |---|---|---|
//! | `stdin` | any line but `release`, and its end | the line `release` |
//! | `udp:PORT` | the datagram `STOP` | the datagram `RELEASE` |
//! | `evdev:NAME` | any key or button going down, the device going away | it going up |

use std::fs::File;
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::RunError;
use crate::robot::EstopSource;

/// Longest wait between two looks at whether the run is over, ms.
const LOOK_MS: libc::c_int = 50;
/// Where the system lists its input devices.
const INPUTS: &str = "/sys/class/input";

#[derive(Debug, Default)]
struct Flags {
    /// Some source is pressed now.
    down: AtomicBool,
    /// One has been since the loop last looked: a short press is not missed between two ticks.
    touched: AtomicBool,
}

/// The loop's end.
#[derive(Clone, Debug)]
pub struct Button(Arc<Flags>);

impl Button {
    /// Whether a source is pressed, or has been since the last call.
    pub fn pressed(&self) -> bool {
        self.0.touched.swap(false, Ordering::Relaxed) | self.0.down.load(Ordering::Relaxed)
    }
}

/// The sources of a run. Ends its thread when dropped.
#[derive(Debug)]
pub struct Estops {
    button: Button,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One source as the thread sees it.
#[derive(Debug)]
struct Source {
    kind: Kind,
    pressed: bool,
    gone: bool,
}

#[derive(Debug)]
enum Kind {
    Lines(File, Vec<u8>),
    Udp(UdpSocket),
    Keys(File),
}

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
        Self::listen(vec![Source::new(Kind::Lines(file, Vec::new()))])
    }

    /// What the loop looks at.
    pub fn button(&self) -> Button {
        self.button.clone()
    }

    /// Whether a source is pressed now.
    pub fn is_down(&self) -> bool {
        self.button.0.down.load(Ordering::Acquire)
    }

    fn listen(mut sources: Vec<Source>) -> Result<Self, RunError> {
        let (flags, stop) = (Arc::<Flags>::default(), Arc::<AtomicBool>::default());
        let (theirs, over) = (flags.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("cadenza-estop".into()).spawn(move || {
            crate::timing::sched::unpin();
            while !over.load(Ordering::Relaxed) {
                wait(&mut sources, &theirs);
            }
        });
        let thread =
            thread.map_err(|e| RunError::Estop { source_name: "thread".into(), what: e.to_string() })?;
        Ok(Self { button: Button(flags), stop, thread: Some(thread) })
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
    let kind = match source {
        EstopSource::Device => return Ok(None),
        EstopSource::Stdin => {
            // SAFETY: the standard input's number; the copy is ours to close.
            let fd = unsafe { libc::dup(libc::STDIN_FILENO) };
            if fd < 0 {
                return Err(refuse(std::io::Error::last_os_error().to_string()));
            }
            // SAFETY: `dup` has just made it, and nobody else owns it.
            Kind::Lines(File::from(unsafe { OwnedFd::from_raw_fd(fd) }), Vec::new())
        }
        EstopSource::Udp(address) => {
            let socket = UdpSocket::bind(address).and_then(|s| s.set_nonblocking(true).map(|()| s));
            Kind::Udp(socket.map_err(|e| refuse(format!("{address}: {e}")))?)
        }
        EstopSource::Evdev(wanted) => Kind::Keys(input(Path::new(INPUTS), wanted).map_err(refuse)?),
    };
    Ok(Some(Source::new(kind)))
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
    let fds = sources.iter().filter(|s| !s.gone).map(Source::fd);
    let mut polls: Vec<libc::pollfd> =
        fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: `polls` is a valid array of that length for the whole call.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, LOOK_MS) };
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
    fn new(kind: Kind) -> Self {
        Self { kind, pressed: false, gone: false }
    }

    fn fd(&self) -> RawFd {
        match &self.kind {
            Kind::Lines(file, _) | Kind::Keys(file) => file.as_raw_fd(),
            Kind::Udp(socket) => socket.as_raw_fd(),
        }
    }

    /// Takes what has come. Returns whether it was pressed, however shortly.
    fn hear(&mut self) -> bool {
        let mut touched = false;
        let mut press = |down: bool| {
            touched |= down;
            self.pressed = down;
        };
        self.gone = match &mut self.kind {
            Kind::Lines(file, line) => !hear_lines(file, line, &mut press),
            Kind::Udp(socket) => {
                let mut datagram = [0; 64];
                while let Ok((len, _)) = socket.recv_from(&mut datagram) {
                    match datagram[..len].trim_ascii() {
                        b"STOP" => press(true),
                        b"RELEASE" => press(false),
                        _ => {}
                    }
                }
                false
            }
            Kind::Keys(file) => !hear_keys(file, &mut press),
        };
        if self.gone {
            press(true);
        }
        touched
    }
}

/// Returns false at the end of the file.
fn hear_lines(file: &mut File, line: &mut Vec<u8>, press: &mut impl FnMut(bool)) -> bool {
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

/// Returns false when the device is gone.
fn hear_keys(file: &mut File, press: &mut impl FnMut(bool)) -> bool {
    const SIZE: usize = size_of::<libc::input_event>();
    /// Type of the events of keys and buttons.
    const EV_KEY: u16 = 1;
    let mut bytes = [0; 16 * SIZE];
    let Ok(len @ 1..) = file.read(&mut bytes) else { return false };
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;

    fn pipe() -> (File, File) {
        let mut fds = [0; 2];
        // SAFETY: an array of two, as `pipe` wants.
        assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
        // SAFETY: both are new and ours.
        fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) })).into()
    }

    /// Waits for `pressed`; the bound is for a stopped machine only.
    fn until(button: &Button, pressed: bool) {
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
        let button = estops.button();
        assert!(!button.pressed());
        write.write_all(b"\n").unwrap();
        until(&button, true);
        write.write_all(b"rele").unwrap();
        write.write_all(b"ase\n").unwrap();
        until(&button, false);
        write.write_all(b"stop\nrelease\n").unwrap();
        until(&button, true);
        until(&button, false);
        drop(write);
        until(&button, true);
        assert!(button.pressed() && button.pressed(), "for good");
    }

    #[test]
    fn datagrams_press_and_release() {
        let sources = ["device", "udp:127.0.0.1:0"].map(|s| s.parse().unwrap());
        assert!(Estops::open(&sources[..1]).unwrap().is_none(), "the device needs no thread");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = socket.local_addr().unwrap();
        let estops = Estops::listen(vec![Source::new(Kind::Udp(socket))]).unwrap();
        let (button, sender) = (estops.button(), UdpSocket::bind("127.0.0.1:0").unwrap());
        sender.send_to(b"hello", to).unwrap();
        sender.send_to(b"STOP", to).unwrap();
        until(&button, true);
        sender.send_to(b"RELEASE\n", to).unwrap();
        until(&button, false);
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
        let estops = Estops::listen(vec![Source::new(Kind::Keys(read))]).unwrap();
        let button = estops.button();
        write.write_all(&[event(1, 1), event(0, 0), event(4, 7)].concat()).unwrap();
        until(&button, true);
        assert!(button.pressed(), "as long as it is down");
        write.write_all(&event(1, 0)).unwrap();
        until(&button, false);
        drop(write);
        until(&button, true);
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
