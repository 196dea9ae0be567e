//! What the server's process costs, read from `/proc`: CPU time of all its threads and resident memory. Linux only.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Nanoseconds of one clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux that Rust runs on.
const TICK_NS: u64 = 10_000_000;

/// A process that is watched from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// CPU time of all threads since each started, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

impl Process {
    /// Watches process `pid`.
    ///
    /// # Errors
    /// If it doesn't run or can't be read.
    pub fn new(pid: u32) -> Result<Self> {
        let process = Self { pid };
        process.sample()?;
        Ok(process)
    }

    /// Watches this process.
    pub fn own() -> Self {
        Self { pid: std::process::id() }
    }

    /// Reads CPU time and memory.
    ///
    /// # Errors
    /// If the process has ended, or if `/proc` shows something else than expected.
    pub fn sample(self) -> Result<Sample> {
        Ok(Sample { cpu_ns: self.cpu_ns()?, rss_bytes: self.rss_bytes()? })
    }

    /// Reads the CPU time, in nanoseconds.
    ///
    /// Sums `schedstat` over the threads, which counts nanoseconds; without it the process's ticks of 10 ms have to do.
    /// The time of a thread that has ended is in the ticks alone, so a server that ends threads during a run shows too little.
    ///
    /// # Errors
    /// As [`Process::sample`].
    pub fn cpu_ns(self) -> Result<u64> {
        match self.schedstat_ns() {
            Some(ns) => Ok(ns),
            None => parse_stat(&self.read("stat")?),
        }
    }

    fn schedstat_ns(self) -> Option<u64> {
        let tasks = fs::read_dir(self.path("task")).ok()?;
        let mut sum = None;
        for task in tasks.flatten() {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            sum = Some(sum.unwrap_or(0) + parse_schedstat(&text).ok()?);
        }
        sum
    }

    /// Reads the resident memory, in bytes.
    ///
    /// `Rss` of `smaps_rollup` is exact; `VmRSS` lags by up to some hundred KiB but needs no right to trace.
    ///
    /// # Errors
    /// As [`Process::sample`].
    pub fn rss_bytes(self) -> Result<u64> {
        match self.read("smaps_rollup") {
            Ok(text) => parse_kib(&text, "Rss:"),
            Err(_) => parse_kib(&self.read("status")?, "VmRSS:"),
        }
    }

    fn read(self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path)
            .with_context(|| format!("{} can't be read: does process {} run?", path.display(), self.pid))
    }

    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// Refuses a run that needs more open files than this process may have.
///
/// # Errors
/// If the limit is below `connections` and the few files that everything needs.
pub fn check_open_files(connections: usize) -> Result<()> {
    const OTHER_FILES: usize = 64;
    let limits = fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let (soft, hard) = parse_open_files(&limits)?;
    if connections + OTHER_FILES > soft {
        bail!(
            "{connections} connections need {} open files, the limit is {soft} (ulimit -n; the hard limit is {hard})",
            connections + OTHER_FILES
        );
    }
    Ok(())
}

fn parse_schedstat(text: &str) -> Result<u64> {
    text.split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .with_context(|| format!("schedstat is {text:?}, expected nanoseconds first"))
}

fn parse_stat(text: &str) -> Result<u64> {
    // The name in the second field may hold spaces and brackets; utime and stime are the 12th and 13th field after it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |index: usize| -> Option<u64> { fields.split_whitespace().nth(index)?.parse().ok() };
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) * TICK_NS),
        _ => bail!("stat is {text:?}, expected ticks in its fields 14 and 15"),
    }
}

fn parse_kib(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .with_context(|| format!("expected a line {name:?} with kB"))
}

fn parse_open_files(limits: &str) -> Result<(usize, usize)> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .context("/proc/self/limits has no line \"Max open files\"")?;
    let mut numbers = line.split_whitespace().map(|field| match field {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    });
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(soft), Some(hard)) => Ok((soft, hard)),
        _ => bail!("limit of open files is {line:?}, expected two numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_linux_prints_them() {
        assert_eq!(parse_schedstat("611158 54481 1\n").expect("schedstat"), 611_158);
        assert!(parse_schedstat("\n").is_err());

        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 9 0 0 0 17 5 0 0 20 0 1 0 1 2 3\n";
        assert_eq!(parse_stat(stat).expect("stat"), 220_000_000);
        assert!(parse_stat("42 (x) S 1").is_err());

        let rollup = "55f0-7fff ---p 0 00:00 0  [rollup]\nRss:                1684 kB\nPss: 338 kB\n";
        assert_eq!(parse_kib(rollup, "Rss:").expect("Rss"), 1684 * 1024);
        assert!(parse_kib(rollup, "VmRSS:").is_err());
    }

    #[test]
    fn the_limit_of_open_files_may_be_unlimited() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 unlimited            files\n";
        assert_eq!(parse_open_files(limits).expect("a limit"), (1024, usize::MAX));
        assert!(parse_open_files("").is_err());
    }

    #[test]
    fn this_process_costs_time_and_memory() {
        let before = Process::own().sample().expect("own process");
        let mut ballast: Vec<u8> = Vec::new();
        // The kernel adds up the time of a running thread at the next tick, at the latest after some 10 ms.
        while Process::own().sample().expect("own process").cpu_ns == before.cpu_ns {
            ballast.extend_from_slice(&[1; 4096]);
        }
        assert!(before.rss_bytes > 100 * 1024, "{before:?}");
        assert!(ballast.len() < 8 << 30);
    }

    #[test]
    fn a_process_that_does_not_run_is_named() {
        // Above the largest pid that Linux allows.
        let error = format!("{:#}", Process::new(4_194_305).expect_err("no such process"));
        assert!(error.contains("4194305"), "{error}");
    }
}
