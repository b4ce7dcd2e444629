//! Real-time set-up of the calling thread: every step is tried, its errno kept, and the result read back.
//!
//! [`enter`] never fails. It takes the best level that the machine grants and says in an [`RtReport`] which one that is
//! and what would have to change for a better one. Dropping the [`RtGuard`] puts the thread back as it was.

use std::fs::{File, OpenOptions};
use std::io::{Error, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};

use super::host;

/// What the control thread asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtRequest {
    /// SCHED_FIFO priority, 1…98; kernel threads need 99.
    pub priority: u8,
    /// Core to pin the thread to.
    pub core: Option<usize>,
    /// Spin before each deadline, µs; only reported here.
    pub spin_us: u32,
}

impl From<&crate::config::RunConfig> for RtRequest {
    fn from(run: &crate::config::RunConfig) -> Self {
        Self { priority: run.priority, core: run.core, spin_us: run.spin_us }
    }
}

/// A step of the set-up that the machine refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtFailure {
    /// The step.
    pub step: String,
    /// What the kernel answered.
    pub errno: i32,
    /// What would make it work.
    pub remedy: String,
}

impl std::fmt::Display for RtFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.step, Error::from_raw_os_error(self.errno), self.remedy)
    }
}

/// The level that was reached, read back from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtReport {
    /// Scheduling class: `FIFO`, `RR`, `OTHER`, …
    pub policy: String,
    /// Real-time priority, 0 for `OTHER`.
    pub priority: i32,
    /// Nice value.
    pub nice: i32,
    /// Whether memory is locked into RAM.
    pub locked: bool,
    /// Cores that the thread may run on.
    pub affinity: Vec<usize>,
    /// Whether the one core that the thread is pinned to is isolated from other tasks.
    pub isolated: bool,
    /// Timer slack of the thread, ns.
    pub timer_slack_ns: u64,
    /// Whether `/dev/cpu_dma_latency` is held at 0.
    pub dma_latency: bool,
    /// Frequency governor, where there is one.
    pub governor: Option<String>,
    /// Kernel release.
    pub kernel: String,
    /// How the kernel preempts.
    pub preempt: String,
    /// Real-time throttle: allowed time and period, µs.
    pub rt_throttle: Option<[i64; 2]>,
    /// Spin before each deadline, µs.
    pub spin_us: u32,
    /// Steps that the machine refused.
    pub failures: Vec<RtFailure>,
}

impl RtReport {
    /// The level in words: `FIFO 80, locked, core 1`.
    pub fn level(&self) -> String {
        let mut words = match self.policy.as_str() {
            "OTHER" if self.nice != 0 => {
                format!("OTHER nice {}, slack {} ns", self.nice, self.timer_slack_ns)
            }
            "OTHER" => format!("OTHER, slack {} ns", self.timer_slack_ns),
            policy => format!("{policy} {}", self.priority),
        };
        words += if self.locked { ", locked" } else { ", memory not locked" };
        if let [core] = self.affinity[..] {
            words += &format!(", core {core}");
        }
        if self.spin_us > 0 {
            words += &format!(", spin {} us", self.spin_us);
        }
        words
    }

    /// Whether any step was refused.
    pub fn degraded(&self) -> bool {
        !self.failures.is_empty()
    }
}

/// Keeps the level while it lives and restores the thread when dropped. Belongs to the thread that called [`enter`].
#[derive(Debug)]
pub struct RtGuard {
    report: RtReport,
    before: Before,
    locked_here: bool,
    // Open means in force: the kernel forgets the request when the file is closed.
    _dma: Option<File>,
    _thread: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Before {
    policy: libc::c_int,
    priority: libc::c_int,
    nice: libc::c_int,
    slack: libc::c_int,
    affinity: Vec<usize>,
}

impl RtGuard {
    /// The level that was reached.
    pub fn report(&self) -> &RtReport {
        &self.report
    }
}

impl Drop for RtGuard {
    fn drop(&mut self) {
        // Going back needs no privilege; a refusal here leaves the thread at the better level, which is harmless.
        // Only a privileged thread may clear the reset-on-fork flag again.
        let Before { policy, priority, .. } = self.before;
        let _ = set_scheduler(policy, priority)
            .or_else(|_| set_scheduler(policy | libc::SCHED_RESET_ON_FORK, priority));
        let _ = set_nice(self.before.nice);
        let _ = set_slack(self.before.slack as libc::c_ulong);
        let _ = set_affinity(&self.before.affinity);
        if self.locked_here {
            // SAFETY: takes no argument; undoes the mlockall of `enter`.
            unsafe { libc::munlockall() };
        }
    }
}

/// Gives the calling thread the best level that the machine grants, in this order: stack prefaulted, memory locked,
/// core, SCHED_FIFO (else nice), timer slack 1 ns, processor sleep states off.
///
/// Memory allocated after this call is locked too, so load everything first.
pub fn enter(request: &RtRequest) -> RtGuard {
    let (policy, priority) = scheduler();
    let before =
        Before { policy, priority, nice: nice(), slack: slack() as libc::c_int, affinity: host::affinity() };
    let mut failures = Vec::new();
    let mut fail = |step: &str, error: Error, remedy: &str| {
        failures.push(RtFailure {
            step: step.into(),
            errno: error.raw_os_error().unwrap_or(0),
            remedy: remedy.into(),
        });
    };

    prefault_stack();
    // SAFETY: flags only.
    let lock = check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) });
    let locked_here = lock.is_ok();
    if let Err(error) = lock {
        fail("lock memory", error, "raise `ulimit -l` or grant CAP_IPC_LOCK");
    }
    if let Some(core) = request.core
        && let Err(error) = set_affinity(&[core])
    {
        let remedy = format!("use one of the allowed cores {:?}", before.affinity);
        fail(&format!("pin to core {core}"), error, &remedy);
    }
    if let Err(error) = set_fifo(request.priority.into()) {
        let remedy = "grant CAP_SYS_NICE, or `rtprio 80` in /etc/security/limits.conf";
        fail(&format!("SCHED_FIFO {}", request.priority), error, remedy);
        if let Err(error) = set_nice(-15) {
            fail("nice -15", error, "grant CAP_SYS_NICE, or `nice -15` in /etc/security/limits.conf");
        }
    }
    if let Err(error) = set_slack(1) {
        fail("timer slack 1 ns", error, "needs prctl(PR_SET_TIMERSLACK)");
    }
    let dma = hold_dma_latency();
    if let Err(error) = &dma {
        let copy = Error::from_raw_os_error(error.raw_os_error().unwrap_or(0));
        fail("hold /dev/cpu_dma_latency at 0", copy, "make the file writable for this user by a udev rule");
    }
    let dma = dma.ok();
    let report = read_back(request.spin_us, dma.is_some(), failures);
    RtGuard { report, before, locked_here, _dma: dma, _thread: PhantomData }
}

/// The level of the calling thread as it stands, without changing it.
pub fn current(spin_us: u32) -> RtReport {
    read_back(spin_us, false, Vec::new())
}

fn read_back(spin_us: u32, dma_latency: bool, failures: Vec<RtFailure>) -> RtReport {
    let (policy, priority) = scheduler();
    let affinity = host::affinity();
    let kernel = host::kernel();
    RtReport {
        policy: policy_name(policy).into(),
        priority,
        nice: nice(),
        locked: host::locked_kb().is_some_and(|kb| kb > 0),
        isolated: matches!(affinity[..], [core] if host::isolated(core)),
        governor: affinity.first().and_then(|&core| host::governor(core)),
        affinity,
        timer_slack_ns: slack(),
        dma_latency,
        kernel: kernel.release,
        preempt: kernel.preempt,
        rt_throttle: host::rt_throttle(),
        spin_us,
        failures,
    }
}

fn policy_name(policy: libc::c_int) -> &'static str {
    match policy {
        libc::SCHED_FIFO => "FIFO",
        libc::SCHED_RR => "RR",
        libc::SCHED_DEADLINE => "DEADLINE",
        libc::SCHED_BATCH => "BATCH",
        libc::SCHED_IDLE => "IDLE",
        _ => "OTHER",
    }
}

fn check(result: libc::c_int) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Touches 512 KiB of stack, so that no page of it is missing when the loop needs it.
#[inline(never)]
fn prefault_stack() {
    const BYTES: usize = 512 * 1024;
    let mut stack = [0u8; BYTES];
    for page in stack.chunks_mut(4096) {
        // SAFETY: the pointer is to the first byte of a chunk that is never empty; volatile keeps the write.
        unsafe { page.as_mut_ptr().write_volatile(1) };
    }
    std::hint::black_box(&stack);
}

fn scheduler() -> (libc::c_int, libc::c_int) {
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; `param` outlives both calls.
    let policy = unsafe {
        libc::sched_getparam(0, &mut param);
        libc::sched_getscheduler(0)
    };
    (policy & !libc::SCHED_RESET_ON_FORK, param.sched_priority)
}

fn set_scheduler(policy: libc::c_int, priority: libc::c_int) -> Result<(), Error> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread; `param` outlives the call.
    check(unsafe { libc::sched_setscheduler(0, policy, &param) })
}

/// SCHED_FIFO that threads started later do not inherit.
const FIFO: libc::c_int = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;

/// SCHED_FIFO at `priority`; when refused, at the most that this process's hard limit allows.
fn set_fifo(priority: libc::c_int) -> Result<(), Error> {
    let refused = match set_scheduler(FIFO, priority) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_RTPRIO, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_RTPRIO, &limit) == 0
        }
    };
    let most = libc::c_int::try_from(limit.rlim_max).unwrap_or(priority).min(priority);
    if raised && most > 0 && set_scheduler(FIFO, most).is_ok() && most == priority {
        return Ok(());
    }
    // A lower priority than asked for is kept, and still reported as a failure of the step.
    Err(refused)
}

fn nice() -> libc::c_int {
    // SAFETY: 0 is the calling thread on Linux; −1 is a possible value, an error is not for this argument.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

fn set_nice(value: libc::c_int) -> Result<(), Error> {
    // SAFETY: plain numbers.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) })
}

fn slack() -> u64 {
    // SAFETY: PR_GET_TIMERSLACK takes no further argument and returns the slack.
    u64::try_from(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) }).unwrap_or(0)
}

fn set_slack(ns: libc::c_ulong) -> Result<(), Error> {
    // SAFETY: PR_SET_TIMERSLACK takes one number.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns, 0, 0, 0) })
}

/// Lets the calling thread run on every core again. A thread starts on the core of the one that started it, and the
/// control thread's core is not for its helpers.
pub fn unpin() {
    let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize).collect();
    // The kernel leaves out the cores that this process may not use; a refusal leaves the thread where it is.
    let _ = set_affinity(&cores);
}

fn set_affinity(cores: &[usize]) -> Result<(), Error> {
    // SAFETY: all-zero bytes are an empty set; CPU_SET is only given cores that the set has room for.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &core in cores {
            if core >= libc::CPU_SETSIZE as usize {
                return Err(Error::from_raw_os_error(libc::EINVAL));
            }
            libc::CPU_SET(core, &mut set);
        }
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set))
    }
}

fn hold_dma_latency() -> Result<File, Error> {
    let mut file =
        OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open("/dev/cpu_dma_latency")?;
    file.write_all(&0i32.to_ne_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    }

    #[test]
    fn the_report_says_what_the_kernel_says() {
        on_a_thread(|| {
            let before = current(0);
            let guard = enter(&RtRequest { priority: 10, core: Some(before.affinity[0]), spin_us: 100 });
            let report = guard.report().clone();
            assert_eq!(report.affinity, [before.affinity[0]]);
            assert_eq!((report.policy.as_str(), report.priority), {
                let (policy, priority) = scheduler();
                (policy_name(policy), priority)
            });
            let fifo_refused = report.failures.iter().any(|f| f.step.starts_with("SCHED_FIFO"));
            assert_eq!(report.policy == "FIFO" && report.priority == 10, !fifo_refused);
            assert_eq!(report.locked, !report.failures.iter().any(|f| f.step == "lock memory"));
            assert!(report.failures.iter().all(|f| f.errno > 0), "{:?}", report.failures);
            drop(guard);
            let after = current(0);
            assert_eq!(
                (&after.policy, after.priority, &after.affinity),
                (&before.policy, 0, &before.affinity)
            );
            assert_eq!((after.nice, after.timer_slack_ns), (before.nice, before.timer_slack_ns));
        });
    }

    #[test]
    fn a_core_that_is_not_there_is_a_failure_with_its_errno() {
        on_a_thread(|| {
            let guard = enter(&RtRequest { priority: 10, core: Some(100_000), spin_us: 0 });
            let failure =
                guard.report().failures.iter().find(|f| f.step == "pin to core 100000").expect("refused");
            assert_eq!(failure.errno, libc::EINVAL);
            assert!(failure.to_string().contains("use one of the allowed cores"), "{failure}");
            assert!(guard.report().degraded());
        });
    }

    #[test]
    fn levels_in_words() {
        let fifo = RtReport {
            policy: "FIFO".into(),
            priority: 80,
            locked: true,
            affinity: vec![1],
            ..RtReport::default()
        };
        assert_eq!(fifo.level(), "FIFO 80, locked, core 1");
        let other = RtReport {
            policy: "OTHER".into(),
            timer_slack_ns: 1,
            affinity: vec![0, 1],
            spin_us: 100,
            ..RtReport::default()
        };
        assert_eq!(other.level(), "OTHER, slack 1 ns, memory not locked, spin 100 us");
    }
}
