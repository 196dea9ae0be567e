//! `bench summary`: the medians of labelled runs, and whether the server reaches what it is meant to.
//!
//! A label is `NAME/ROUND`. Runs of one round were made one after the other, so that a ratio of two of them leaves out what the
//! machine had else to do in that minute; the median over the rounds leaves out the minutes that were worst.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::report::Report;

/// Arguments of `bennu bench summary`.
#[derive(Args, Clone, Debug)]
pub struct SummaryArgs {
    /// JSON lines that runs labelled NAME/ROUND wrote with --json
    file: PathBuf,
    /// What the runs are held against
    #[arg(long, value_enum, default_value_t = Goals::Channels)]
    goals: Goals,
}

/// A set of goals, which one script measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Goals {
    /// Those of plain channels, which benches/targets.sh measures
    Channels,
    /// Those of MCP, which benches/mcp.sh measures
    Mcp,
    /// Those of other MCP servers behind this one, which benches/gateway.sh measures
    Gateway,
}

impl Goals {
    fn all(self) -> &'static [Goal] {
        match self {
            Self::Channels => &CHANNEL_GOALS,
            Self::Mcp => &MCP_GOALS,
            Self::Gateway => &GATEWAY_GOALS,
        }
    }
}

/// What channels have to reach. KB are 1000 bytes here: the stricter reading.
const CHANNEL_GOALS: [Goal; 8] = [
    Goal {
        what: "RSS of an idle connection, joined to its own topic, bytes",
        bound: Bound::AtMost(3000.0),
        measured: Measured::Median(series("idle", "idle", Figure::RssPerUnit)),
    },
    Goal {
        what: "RSS of a further channel on it, bytes",
        bound: Bound::AtMost(1000.0),
        measured: Measured::Median(series("idle", "idle further", Figure::RssPerUnit)),
    },
    Goal {
        what: "echo 64x1: CPU a message over TCP echo's",
        bound: Bound::AtMost(1.4),
        measured: Measured::Ratio(
            series("echo-64x1", "echo", Figure::CpuUs),
            series("floor-64x1", "floor echo", Figure::CpuUs),
        ),
    },
    Goal {
        what: "echo 64x16: rate over TCP echo's",
        bound: Bound::AtLeast(0.35),
        measured: Measured::Ratio(
            series("echo-64x16", "echo", Figure::Rate),
            series("floor-64x16", "floor echo", Figure::Rate),
        ),
    },
    Goal {
        what: "fan-out to 1000: CPU a delivery, 8 in flight over 1",
        bound: Bound::AtMost(0.25),
        measured: Measured::Ratio(
            series("fanout-1000x8", "fanout", Figure::CpuUs),
            series("fanout-1000x1", "fanout", Figure::CpuUs),
        ),
    },
    Goal {
        what: "fan-out to 1000, 8 in flight: deliveries a second (quiet machine)",
        bound: Bound::AtLeast(500_000.0),
        measured: Measured::Median(series("fanout-1000x8", "fanout", Figure::Rate)),
    },
    Goal {
        what: "connect, upgrade and join: CPU over a TCP connect's, held open",
        bound: Bound::AtMost(4.5),
        measured: Measured::Ratio(
            series("idle", "idle", Figure::CpuUs),
            series("floor-idle", "floor idle", Figure::CpuUs),
        ),
    },
    Goal {
        what: "the same, closed by reset each time",
        bound: Bound::AtMost(4.5),
        measured: Measured::Ratio(
            series("join", "join", Figure::CpuUs),
            series("floor-connects", "floor connects", Figure::CpuUs),
        ),
    },
];

/// What MCP has to reach: beside a plain channel of the same server, and beside rmcp's Streamable HTTP server.
const MCP_GOALS: [Goal; 7] = [
    Goal {
        what: "tools/call 64x1 on a channel: CPU a call over a plain channel's echo",
        bound: Bound::AtMost(2.0),
        measured: Measured::Ratio(
            series("call-64x1", "mcp-call", Figure::CpuUs),
            series("echo-64x1", "echo", Figure::CpuUs),
        ),
    },
    Goal {
        what: "tools/call 64x1 over HTTP, 2025-11-25: rate over rmcp's",
        bound: Bound::Above(1.0),
        measured: over_rmcp("http-legacy-64x1", "rmcp-legacy-64x1", Figure::Rate),
    },
    Goal {
        what: "the same: CPU a call over rmcp's",
        bound: Bound::Below(1.0),
        measured: over_rmcp("http-legacy-64x1", "rmcp-legacy-64x1", Figure::CpuUs),
    },
    Goal {
        what: "tools/call 64x1 over HTTP, 2026-07-28: rate over rmcp's",
        bound: Bound::Above(1.0),
        measured: over_rmcp("http-modern-64x1", "rmcp-modern-64x1", Figure::Rate),
    },
    Goal {
        what: "the same in 2026-07-28: CPU a call over rmcp's",
        bound: Bound::Below(1.0),
        measured: over_rmcp("http-modern-64x1", "rmcp-modern-64x1", Figure::CpuUs),
    },
    Goal {
        what: "RSS of a connection's first idle MCP session, bytes",
        bound: Bound::AtMost(4096.0),
        measured: Measured::Median(series("idle", "mcp-idle first", Figure::RssPerUnit)),
    },
    Goal {
        what: "RSS of a further idle MCP session on it, bytes",
        bound: Bound::AtMost(4096.0),
        measured: Measured::Median(series("idle", "mcp-idle further", Figure::RssPerUnit)),
    },
];

/// What a gateway may add to calling the same server directly, and how it has to stand beside another gateway.
const GATEWAY_GOALS: [Goal; 6] = [
    Goal {
        what: "before an HTTP server, 32x1: the gateway's CPU a call over the server's own",
        bound: Bound::AtMost(4.0),
        measured: over("through-32x1", "direct-32x1", Figure::CpuUs),
    },
    Goal {
        what: "the same, one call at a time: p50 over a direct call's",
        bound: Bound::AtMost(4.0),
        measured: over("through-1x1", "direct-1x1", Figure::P50Us),
    },
    Goal {
        what: "before a stdio server, 32x1: rate over mcp-proxy's",
        bound: Bound::Above(1.0),
        measured: over("stdio-32x1", "proxy-32x1", Figure::Rate),
    },
    Goal {
        what: "the same: the gateway's CPU a call over mcp-proxy's",
        bound: Bound::Below(0.5),
        measured: over("stdio-32x1", "proxy-32x1", Figure::CpuUs),
    },
    Goal {
        what: "the same, one call at a time: p50 over mcp-proxy's",
        bound: Bound::Below(1.0),
        measured: over("stdio-1x1", "proxy-1x1", Figure::P50Us),
    },
    Goal {
        what: "before an HTTP server, by a channel, 32x1: CPU a call over that by HTTP",
        bound: Bound::AtMost(1.0),
        measured: Measured::Ratio(
            series("channel-32x1", "mcp-call", Figure::CpuUs),
            series("through-32x1", "mcp-http", Figure::CpuUs),
        ),
    },
];

const fn over_rmcp(own: &'static str, rmcp: &'static str, figure: Figure) -> Measured {
    over(own, rmcp, figure)
}

const fn over(above: &'static str, below: &'static str, figure: Figure) -> Measured {
    Measured::Ratio(series(above, "mcp-http", figure), series(below, "mcp-http", figure))
}

struct Goal {
    what: &'static str,
    bound: Bound,
    measured: Measured,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
    Above(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::Below(limit) => value < limit,
            Self::Above(limit) => value > limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {}", rounded(*most)),
            Self::AtLeast(least) => write!(f, ">= {}", rounded(*least)),
            Self::Below(limit) => write!(f, "< {}", rounded(*limit)),
            Self::Above(limit) => write!(f, "> {}", rounded(*limit)),
        }
    }
}

enum Measured {
    /// The median over the rounds.
    Median(Series),
    /// The median of the rounds' own ratios.
    Ratio(Series, Series),
}

/// One figure of all runs with one name and mode.
struct Series {
    name: &'static str,
    mode: &'static str,
    figure: Figure,
}

const fn series(name: &'static str, mode: &'static str, figure: Figure) -> Series {
    Series { name, mode, figure }
}

#[derive(Clone, Copy, Debug)]
enum Figure {
    /// Server CPU time a unit, in microseconds.
    CpuUs,
    /// Units a second.
    Rate,
    /// Half of the units took at most this, in microseconds.
    P50Us,
    /// Server memory a unit, in bytes.
    RssPerUnit,
}

impl Figure {
    fn of(self, report: &Report) -> Option<f64> {
        match self {
            Self::CpuUs => report.server.map(|server| server.cpu_us_per_unit),
            Self::Rate => Some(report.rate_per_s),
            Self::P50Us => Some(report.latency?.p50_us),
            Self::RssPerUnit => report.server?.rss_bytes_per_unit,
        }
    }
}

/// The reports by name and mode, and in each by round.
struct Runs(BTreeMap<(String, String), BTreeMap<u32, Report>>);

impl Runs {
    /// Sorts reports by their labels. Those whose label isn't `NAME/ROUND` are left out.
    ///
    /// # Errors
    /// If a label comes twice: the file holds more than one comparison.
    fn of(reports: Vec<Report>) -> Result<Self> {
        let mut runs: BTreeMap<_, BTreeMap<u32, Report>> = BTreeMap::new();
        for report in reports {
            let Some((name, round)) = report.label.rsplit_once('/') else {
                continue;
            };
            let Ok(round) = round.parse() else { continue };
            let rounds = runs.entry((name.to_owned(), report.mode.clone())).or_default();
            let (label, mode) = (report.label.clone(), report.mode.clone());
            if rounds.insert(round, report).is_some() {
                bail!("label {label:?} comes twice with mode {mode:?}, expected one comparison a file");
            }
        }
        Ok(Self(runs))
    }

    fn values(&self, series: &Series) -> BTreeMap<u32, f64> {
        let key = (series.name.to_owned(), series.mode.to_owned());
        self.0
            .get(&key)
            .into_iter()
            .flatten()
            .filter_map(|(&round, report)| Some((round, series.figure.of(report)?)))
            .collect()
    }

    /// The value to hold against the bound, and what it was made from; `None` if a series has no run.
    fn measure(&self, measured: &Measured) -> Option<(f64, String)> {
        match measured {
            Measured::Median(series) => {
                let spread = Spread::of(self.values(series).into_values())?;
                Some((spread.median, spread.range()))
            }
            Measured::Ratio(above, below) => {
                let (above, below) = (self.values(above), self.values(below));
                let ratio = Spread::of(ratios(&above, &below))?;
                let median = |values: BTreeMap<u32, f64>| {
                    Spread::of(values.into_values()).map_or(f64::NAN, |spread| spread.median)
                };
                let parts = format!("{}; {} over {}", ratio.range(), rounded(median(above)), rounded(median(below)));
                Some((ratio.median, parts))
            }
        }
    }
}

/// The ratios of the rounds that both have.
fn ratios(above: &BTreeMap<u32, f64>, below: &BTreeMap<u32, f64>) -> Vec<f64> {
    above.iter().filter_map(|(round, value)| Some(value / below.get(round)?)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// The median of some values and their ends; `None` of none.
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = values[(values.len() - 1) / 2];
        Some(Self { least: values[0], median: f64::midpoint(lower, upper), most: values[values.len() - 1] })
    }

    fn range(&self) -> String {
        format!("{} to {}", rounded(self.least), rounded(self.most))
    }
}

/// Three significant digits, as many as the runs can tell.
fn rounded(value: f64) -> String {
    let digits = match value.abs() {
        big if big >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// Runs the mode.
///
/// # Errors
/// If the file can't be read, or if a goal is missed or wasn't measured.
pub fn run(args: &SummaryArgs) -> Result<()> {
    let text = fs::read_to_string(&args.file)
        .with_context(|| format!("results can't be read from {}", args.file.display()))?;
    let reports = text
        .lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("line {} is no result of a run", index + 1))
        })
        .collect::<Result<Vec<Report>>>()?;
    let runs = Runs::of(reports)?;
    println!("{}", absolute_figures(&runs));
    let all = args.goals.all();
    let (table, missed) = goals(all, &runs);
    print!("{table}");
    if missed > 0 {
        bail!("{missed} of {} goals were missed or not measured", all.len());
    }
    Ok(())
}

fn absolute_figures(runs: &Runs) -> String {
    let rows = runs.0.iter().map(|((name, mode), rounds)| {
        let median = |pick: fn(&Report) -> Option<f64>| {
            Spread::of(rounds.values().filter_map(pick)).map_or("-".to_owned(), |spread| rounded(spread.median))
        };
        let rates = Spread::of(rounds.values().map(|report| report.rate_per_s));
        [
            name.clone(),
            mode.clone(),
            rounds.len().to_string(),
            median(|report| Some(report.rate_per_s)),
            rates.map_or("-".to_owned(), |rates| rates.range()),
            median(|report| Some(report.latency?.p50_us)),
            median(|report| Some(report.latency?.p99_us)),
            median(|report| Some(report.latency?.p999_us)),
            median(|report| Some(report.last_delivery?.p50_us)),
            median(|report| Figure::CpuUs.of(report)),
            median(|report| Figure::RssPerUnit.of(report)),
            median(|report| Some(report.client_cores)),
        ]
    });
    markdown(
        [
            "run",
            "mode",
            "rounds",
            "units/s",
            "least to most",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "last p50 us",
            "CPU us/unit",
            "RSS B/unit",
            "client cores",
        ],
        rows,
    )
}

/// The table of the goals, and how many of them aren't reached.
fn goals(all: &[Goal], runs: &Runs) -> (String, usize) {
    let mut missed = BTreeSet::new();
    let rows = all.iter().map(|goal| {
        let (value, from, verdict) = match runs.measure(&goal.measured) {
            Some((value, from)) if goal.bound.holds(value) => (rounded(value), from, "yes"),
            Some((value, from)) => (rounded(value), from, "NO"),
            None => ("-".to_owned(), "not measured".to_owned(), "NO"),
        };
        if verdict == "NO" {
            missed.insert(goal.what);
        }
        [goal.what.to_owned(), goal.bound.to_string(), value, from, verdict.to_owned()]
    });
    let table = markdown(["goal", "bound", "measured", "least to most", "reached"], rows);
    (table, missed.len())
}

/// A table that reads well as text and as Markdown.
fn markdown<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let mut widths = head.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(widths);
        let cells: Vec<_> = cells.map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        format!("|{}|\n", cells.join("|"))
    };
    let rule = widths.map(|width| "-".repeat(width + 2)).join("|");
    let mut text = format!("{}|{rule}|\n", line(head));
    for row in &rows {
        text.push_str(&line(row.each_ref().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::ServerCost;

    fn report(label: &str, mode: &str, rate_per_s: f64, cpu_us: f64, rss: Option<f64>) -> Report {
        Report {
            mode: mode.to_owned(),
            label: label.to_owned(),
            unit: "message".to_owned(),
            count: 1,
            seconds: 1.0,
            rate_per_s,
            latency: None,
            last_delivery: None,
            server: Some(ServerCost {
                cpu_us_per_unit: cpu_us,
                cores: 1.0,
                rss_before_bytes: 0,
                rss_after_bytes: 0,
                rss_bytes_per_unit: rss,
            }),
            client_cores: 1.0,
            faults: 0,
            pushes: None,
            parameters: serde_json::Value::Null,
            unix_ms: 0,
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]).expect("one").median, 3.0);
        assert_eq!(spread(&[9.0, 1.0, 2.0]).expect("three").median, 2.0);
        let four = spread(&[4.0, 1.0, 10.0, 2.0]).expect("four");
        assert_eq!((four.least, four.median, four.most), (1.0, 3.0, 10.0));
    }

    #[test]
    fn a_ratio_is_taken_within_rounds_and_not_between_medians() {
        let series = |values: [(u32, f64); 3]| BTreeMap::from(values);
        let above = series([(1, 10.0), (2, 30.0), (3, 100.0)]);
        let below = series([(1, 20.0), (2, 10.0), (4, 1.0)]);
        assert_eq!(ratios(&above, &below), [0.5, 3.0]);
    }

    #[test]
    fn goals_reached_missed_and_not_measured_are_told_apart() {
        let mut reports = Vec::new();
        for round in 1..=3 {
            let label = |name: &str| format!("{name}/{round}");
            reports.push(report(&label("idle"), "idle", 1.0, 40.0, Some(2999.0)));
            reports.push(report(&label("idle"), "idle further", 1.0, 9.0, Some(1001.0)));
            reports.push(report(&label("floor-idle"), "floor idle", 1.0, 10.0, None));
        }
        let runs = Runs::of(reports).expect("labels of their own");

        let (table, missed) = goals(&CHANNEL_GOALS, &runs);

        let row = |start: &str| {
            let starts = |line: &&str| line.starts_with(&format!("| {start}"));
            table.lines().find(starts).expect("a row").to_owned()
        };
        assert!(row("RSS of an idle").ends_with("| yes     |"), "{table}");
        assert!(row("RSS of a further").ends_with("| NO      |"), "{table}");
        assert!(row("connect, upgrade").contains("| 4.00 "), "{table}");
        assert!(row("echo 64x1:").contains("not measured"), "{table}");
        assert_eq!(missed, CHANNEL_GOALS.len() - 2);
    }

    #[test]
    fn being_ahead_of_another_server_is_more_than_being_level() {
        let table = |own_rate: f64, own_cpu_us: f64| {
            let runs = Runs::of(vec![
                report("http-legacy-64x1/1", "mcp-http", own_rate, own_cpu_us, None),
                report("rmcp-legacy-64x1/1", "mcp-http", 1000.0, 50.0, None),
            ]);
            goals(&MCP_GOALS, &runs.expect("labels of their own"))
        };

        assert_eq!(table(1000.0, 50.0).1, MCP_GOALS.len());
        let (ahead, missed) = table(1100.0, 45.0);
        assert_eq!(missed, MCP_GOALS.len() - 2, "{ahead}");
        assert!(ahead.contains("| > 1.00 ") && ahead.contains("| < 1.00 "), "{ahead}");
    }

    #[test]
    fn goals_are_counted_by_their_names() {
        for all in [Goals::Channels, Goals::Mcp].map(Goals::all) {
            let names: BTreeSet<_> = all.iter().map(|goal| goal.what).collect();
            assert_eq!(names.len(), all.len());
        }
    }

    #[test]
    fn a_file_with_two_comparisons_is_refused() {
        let twice = || report("idle/1", "idle", 1.0, 1.0, None);
        assert!(Runs::of(vec![twice(), twice()]).is_err());
        let unlabelled = || report("", "idle", 1.0, 1.0, None);
        assert!(Runs::of(vec![unlabelled(), unlabelled(), twice()]).is_ok());
    }
}
