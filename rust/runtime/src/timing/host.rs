//! Facts about this machine, read from the kernel and never guessed: what is absent stays `None`.

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;

use serde::{Deserialize, Serialize};

/// Kernel release and how it preempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Release, as of `uname -r`.
    pub release: String,
    /// `PREEMPT_RT`, `PREEMPT_DYNAMIC`, `PREEMPT` or `none`.
    pub preempt: String,
}

/// The running kernel.
pub fn kernel() -> Kernel {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: `name` is valid for one utsname, and all-zero bytes are a valid one should the call fail.
    let name = unsafe {
        libc::uname(name.as_mut_ptr());
        name.assume_init()
    };
    // SAFETY: the kernel ends both strings with a nul, and a zeroed buffer is an empty string.
    let text =
        |field: &[libc::c_char]| unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned();
    let version = text(&name.version);
    let preempt =
        ["PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT"].into_iter().find(|word| version.contains(word));
    Kernel { release: text(&name.release), preempt: preempt.unwrap_or("none").into() }
}

/// Model of the first processor.
pub fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let x86 = info
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    x86.or_else(|| Some(read("/proc/device-tree/model")?.trim_end_matches('\0').to_owned()))
}

/// Processors that this thread may run on.
pub fn affinity() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all-zero bytes are an empty set, the size is the set's own, and CPU_ISSET stays below CPU_SETSIZE.
    unsafe {
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        let set = set.assume_init();
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

/// Frequency governor of a core.
pub fn governor(core: usize) -> Option<String> {
    read(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"))
}

/// Time that real-time tasks may use in each period, and the period, µs; a first number of −1 means no limit.
pub fn rt_throttle() -> Option<[i64; 2]> {
    let number = |name: &str| read(&format!("/proc/sys/kernel/{name}"))?.parse().ok();
    Some([number("sched_rt_runtime_us")?, number("sched_rt_period_us")?])
}

/// Whether the kernel keeps other tasks off a core.
pub fn isolated(core: usize) -> bool {
    read("/sys/devices/system/cpu/isolated").is_some_and(|list| in_list(&list, core))
}

/// Real-time budget of this process's control group (cgroup v1), µs; 0 means that no real-time class is available.
pub fn rt_group_budget() -> Option<i64> {
    let groups = read("/proc/self/cgroup")?;
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        parts.next()?.split(',').any(|name| name == "cpu").then(|| parts.next())?
    })?;
    read(&format!("/sys/fs/cgroup/cpu{path}/cpu.rt_runtime_us"))?.parse().ok()
}

/// Name of the container runtime, when this process runs in one that shows itself.
pub fn container() -> Option<String> {
    read("/run/systemd/container").filter(|name| !name.is_empty()).or_else(|| {
        let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
        marks.into_iter().find(|(path, _)| fs::exists(path).unwrap_or(false)).map(|(_, name)| name.into())
    })
}

/// Memory of this process that is locked into RAM, kB.
pub fn locked_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Load average of the last minute.
pub fn load() -> Option<f64> {
    read("/proc/loadavg")?.split(' ').next()?.parse().ok()
}

/// USB serial ports with their latency timers, ms.
pub fn serial_latency() -> Vec<(String, u32)> {
    let ports = fs::read_dir("/sys/bus/usb-serial/devices").into_iter().flatten().flatten();
    let mut timers: Vec<(String, u32)> = ports
        .filter_map(|port| {
            let timer = read(port.path().join("latency_timer").to_str()?)?.parse().ok()?;
            Some((format!("/dev/{}", port.file_name().to_str()?), timer))
        })
        .collect();
    timers.sort();
    timers
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Whether a kernel list such as `1,4-7` holds `core`.
fn in_list(list: &str, core: usize) -> bool {
    list.split(',').any(|item| match item.trim().split_once('-') {
        Some((a, b)) => {
            a.parse().is_ok_and(|a: usize| a <= core) && b.parse().is_ok_and(|b: usize| core <= b)
        }
        None => item.trim().parse() == Ok(core),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists() {
        assert!(in_list("1,4-7", 1) && in_list("1,4-7", 4) && in_list("1,4-7", 7) && in_list("3", 3));
        assert!(!in_list("1,4-7", 0) && !in_list("1,4-7", 3) && !in_list("1,4-7", 8) && !in_list("", 0));
    }

    #[test]
    fn facts_that_every_linux_has() {
        assert!(!kernel().release.is_empty());
        assert!(!affinity().is_empty());
        assert!(locked_kb().is_some() && load().is_some());
    }
}
