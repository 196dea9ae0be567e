//! What a run shows: a table for people and a JSON line for programs.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clock::unix_ms;
use super::options::OutputOptions;
use super::process::Sample;
use super::record::Latency;
use super::stage::Outcome;

/// One measurement with the parameters that gave it; a line of the JSON output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The mode, and the part of it where a mode measures several things.
    pub mode: String,
    /// The name given with `--label`.
    pub label: String,
    /// What is counted: `message`, `delivery`, `join`, `connect`, `call`, `session`.
    pub unit: String,
    /// Units counted.
    pub count: u64,
    /// Seconds in which they were counted.
    pub seconds: f64,
    /// Units a second.
    pub rate_per_s: f64,
    /// Latency of a unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// From a broadcast's publishing to its last delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Latency>,
    /// CPU time and memory of the server, if its pid was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerCost>,
    /// CPU time of this client per second: near 1 with one thread, the client is what limits the rate.
    pub client_cores: f64,
    /// Answers that weren't what they had to be.
    pub faults: u64,
    /// Messages between the answers that are none, warm-up included; counted by the MCP modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushes: Option<u64>,
    /// The options of the run.
    pub parameters: Value,
    /// When the run ended, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// What the server's process took for a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerCost {
    /// CPU time a unit, in microseconds.
    pub cpu_us_per_unit: f64,
    /// CPU time per second.
    pub cores: f64,
    /// Resident memory before, in bytes.
    pub rss_before_bytes: u64,
    /// Resident memory after, in bytes.
    pub rss_after_bytes: u64,
    /// Growth of the resident memory a connection or channel, where the mode measures that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes_per_unit: Option<f64>,
}

impl ServerCost {
    /// The cost of `count` units between two samples that lie `elapsed` apart.
    pub fn between(before: Sample, after: Sample, count: u64, elapsed: Duration) -> Self {
        let cpu_us = after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3;
        Self {
            cpu_us_per_unit: cpu_us / count.max(1) as f64,
            cores: cpu_us / 1e6 / elapsed.as_secs_f64(),
            rss_before_bytes: before.rss_bytes,
            rss_after_bytes: after.rss_bytes,
            rss_bytes_per_unit: None,
        }
    }
}

/// What a report says beside the figures.
#[derive(Debug)]
pub struct Heading<'a> {
    /// The mode.
    pub mode: &'a str,
    /// What is counted.
    pub unit: &'a str,
    /// The options of the run, as JSON.
    pub parameters: Value,
}

impl Report {
    /// Sums up a run of load.
    pub fn of_load(heading: Heading<'_>, output: &OutputOptions, outcome: &Outcome) -> Self {
        let recorder = &outcome.recorder;
        let seconds = outcome.elapsed.as_secs_f64();
        Self {
            mode: heading.mode.to_owned(),
            label: output.label.clone(),
            unit: heading.unit.to_owned(),
            count: recorder.count,
            seconds,
            rate_per_s: recorder.count as f64 / seconds,
            latency: Latency::of(&recorder.latency),
            last_delivery: Latency::of(&recorder.last_delivery),
            server: outcome
                .server
                .map(|(before, after)| ServerCost::between(before, after, recorder.count, outcome.elapsed)),
            client_cores: outcome.client_cpu_ns as f64 / 1e9 / seconds,
            faults: recorder.faults,
            pushes: (recorder.pushes > 0).then_some(recorder.pushes),
            parameters: heading.parameters,
            unix_ms: unix_ms(),
        }
    }

    /// The row of the table, in the columns of [`table`].
    fn row(&self) -> Vec<String> {
        let latency = |latency: Option<Latency>, pick: fn(&Latency) -> f64| {
            latency.map_or("-".to_owned(), |latency| format!("{:.1}", pick(&latency)))
        };
        let server = |pick: fn(&ServerCost) -> String| self.server.as_ref().map_or("-".to_owned(), pick);
        vec![
            self.mode.clone(),
            self.label.clone(),
            format!("{:.0}", self.rate_per_s),
            latency(self.latency, |l| l.p50_us),
            latency(self.latency, |l| l.p90_us),
            latency(self.latency, |l| l.p99_us),
            latency(self.latency, |l| l.p999_us),
            latency(self.last_delivery, |l| l.p50_us),
            server(|s| format!("{:.2}", s.cpu_us_per_unit)),
            server(|s| format!("{:.2}", s.cores)),
            format!("{:.2}", self.client_cores),
            server(|s| format!("{:.1}", s.rss_after_bytes as f64 / f64::from(1 << 20))),
            server(|s| s.rss_bytes_per_unit.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"))),
            self.faults.to_string(),
        ]
    }
}

/// Aligns rows under a head: the first two columns to the left, numbers to the right.
pub fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// The table of several reports: a unit is what the mode counts.
pub fn table(reports: &[Report]) -> String {
    const HEAD: [&str; 14] = [
        "mode",
        "label",
        "units/s",
        "p50 us",
        "p90 us",
        "p99 us",
        "p99.9 us",
        "last p50",
        "CPU us/unit",
        "server cores",
        "client cores",
        "RSS MiB",
        "RSS B/unit",
        "faults",
    ];
    let rows: Vec<_> = reports.iter().map(Report::row).collect();
    aligned(&HEAD, &rows)
}

/// Prints the table and the JSON lines.
///
/// # Errors
/// If the file can't be written, or if an answer of the server was wrong: `first_fault` is the first.
pub fn publish(reports: &[Report], output: &OutputOptions, first_fault: Option<&str>) -> Result<()> {
    let mut lines = String::new();
    for report in reports {
        lines.push_str(&serde_json::to_string(report)?);
        lines.push('\n');
    }
    match output.json.as_deref() {
        Some("-") => {
            eprint!("{}", table(reports));
            print!("{lines}");
        }
        Some(path) => {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(lines.as_bytes()))
                .with_context(|| format!("results can't be written to {path:?}"))?;
            print!("{}", table(reports));
        }
        None => print!("{}", table(reports)),
    }
    let faults: u64 = reports.iter().map(|report| report.faults).sum();
    if let Some(first) = first_fault {
        bail!("{faults} answers were wrong, the first: {first}");
    }
    if let Some(empty) = reports.iter().find(|report| report.count == 0) {
        bail!("{}: nothing was counted in {} s", empty.mode, empty.seconds);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_the_difference_of_two_samples_shared_out() {
        let before = Sample { cpu_ns: 1_000_000, rss_bytes: 10 };
        let after = Sample { cpu_ns: 501_000_000, rss_bytes: 30 };

        let cost = ServerCost::between(before, after, 100_000, Duration::from_secs(1));

        assert_eq!(cost.cpu_us_per_unit, 5.0);
        assert_eq!(cost.cores, 0.5);
        assert_eq!((cost.rss_before_bytes, cost.rss_after_bytes), (10, 30));
    }

    #[test]
    fn numbers_stand_under_the_right_end_of_their_head() {
        let rows = [
            vec!["echo".to_owned(), String::new(), "5".to_owned()],
            vec!["f".to_owned(), "long".to_owned(), "12345".to_owned()],
        ];
        assert_eq!(aligned(&["mode", "l", "rate"], &rows), "mode  l      rate\necho            5\nf     long  12345\n");
    }
}
