//! Whether a machine was quiet while it was measured: what other programs and the host's other guests took.
#![allow(dead_code, reason = "every bench uses its own part")]

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

/// Shares of the processors' time, and a spread, above which figures are not to be believed.
const MOST_OTHERS: f64 = 0.05;
const MOST_STEAL: f64 = 0.02;
const MOST_SPREAD: f64 = 1.25;

/// Seconds of all processors together since the start of the machine, and of this program with the children that it
/// has waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    total: f64,
    idle: f64,
    steal: f64,
    own: f64,
}

/// The columns of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn columns(stat: &str) -> Option<[f64; 8]> {
    let words = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<f64> = words.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    ticks.try_into().ok()
}

impl Sample {
    fn of(stat: &str, own: f64) -> Self {
        // USER_HZ is 100 on every Linux.
        let columns = columns(stat).expect("/proc/stat is as it always was").map(|ticks| ticks / 100.0);
        Self { total: columns.iter().sum(), idle: columns[3] + columns[4], steal: columns[7], own }
    }

    fn now() -> Self {
        let used = |who| {
            let usage = getrusage(who).expect("getrusage");
            let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
            seconds(usage.user_time()) + seconds(usage.system_time())
        };
        let stat = fs::read_to_string("/proc/stat").expect("/proc is mounted");
        Self::of(&stat, used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN))
    }
}

/// What others took between two samples, as shares of all processors' time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Noise {
    /// Other programs of this machine.
    pub(crate) others: f64,
    /// Other guests of the same host.
    pub(crate) steal: f64,
}

impl Noise {
    fn between(from: Sample, to: Sample) -> Self {
        let total = (to.total - from.total).max(0.01);
        let busy = total - (to.idle - from.idle) - (to.steal - from.steal);
        let others = (busy - (to.own - from.own)).max(0.0);
        Self { others: others / total, steal: (to.steal - from.steal) / total }
    }
}

/// Tasks that could run, this one left out.
fn runnable() -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = text.split(' ').nth(3).and_then(|tasks| tasks.split('/').next()?.parse::<u32>().ok());
    tasks.unwrap_or(1).saturating_sub(1)
}

/// Watches the machine from before a measurement to its end.
#[derive(Debug)]
pub(crate) struct Watch {
    before: Noise,
    runnable: u32,
    start: Sample,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// In the second before, while this program slept.
    pub(crate) before: Noise,
    /// The most tasks that could run in that second.
    pub(crate) runnable: u32,
    pub(crate) during: Noise,
    /// Largest by smallest figure of a row's rounds, the median of all rows; 1 for a single round.
    pub(crate) spread: f64,
}

impl Watch {
    /// Looks at the machine for a second, in which nothing is measured.
    pub(crate) fn begin() -> Self {
        let (from, start, mut most) = (Sample::now(), Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(1) {
            sleep(Duration::from_millis(50));
            most = most.max(runnable());
        }
        let now = Sample::now();
        Self { before: Noise::between(from, now), runnable: most, start: now }
    }

    /// After the measurement, when all its programs have been waited for.
    pub(crate) fn end(&self, spread: f64) -> Verdict {
        let during = Noise::between(self.start, Sample::now());
        Verdict { before: self.before, runnable: self.runnable, during, spread }
    }
}

impl Verdict {
    pub(crate) fn is_quiet(&self) -> bool {
        let noise = |noise: Noise| noise.others > MOST_OTHERS || noise.steal > MOST_STEAL;
        !noise(self.before) && !noise(self.during) && self.spread <= MOST_SPREAD
    }

    /// In one sentence or two.
    pub(crate) fn line(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        format!(
            "{}: other programs took {} of the processors' time in the second before ({} runnable tasks) and {} during \
             the measurement, other guests of the host {} and {}; the median row's rounds differ by a factor of {:.2}.",
            if self.is_quiet() { "The machine was quiet" } else { "**The machine was not quiet**" },
            percent(self.before.others),
            self.runnable,
            percent(self.during.others),
            percent(self.before.steal),
            percent(self.during.steal),
            self.spread,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ticks: &str, own: f64) -> Sample {
        Sample::of(&format!("cpu  {ticks} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"), own)
    }

    #[test]
    fn own_work_is_no_noise_and_others_work_is() {
        let from = sample("100 0 100 800 0 0 0 0", 1.0);
        // 10 s of two processors: 6 s busy, 0.5 s stolen
        let to = sample("500 0 300 1150 0 0 0 50", 6.9);
        let noise = Noise::between(from, to);
        assert!((noise.steal - 0.05).abs() < 1e-9 && (noise.others - 0.01).abs() < 1e-9, "{noise:?}");
        assert!(Noise::between(from, sample("500 0 300 1150 0 0 0 50", 3.0)).others > 0.3);
    }

    #[test]
    fn any_noise_is_told() {
        let none = Noise::default();
        let quiet = Verdict { before: none, runnable: 0, during: none, spread: 1.1 };
        assert!(quiet.is_quiet() && quiet.line().starts_with("The machine was quiet"));
        let others = Noise { others: 0.2, steal: 0.0 };
        let steal = Noise { others: 0.0, steal: 0.1 };
        for verdict in [
            Verdict { before: others, ..quiet },
            Verdict { during: others, ..quiet },
            Verdict { during: steal, ..quiet },
            Verdict { spread: 2.0, ..quiet },
        ] {
            assert!(!verdict.is_quiet() && verdict.line().contains("not quiet"), "{}", verdict.line());
        }
    }

    #[test]
    fn this_machine_can_be_watched() {
        let watch = Watch::begin();
        let verdict = watch.end(1.0);
        for noise in [verdict.before, verdict.during] {
            assert!((0.0..=1.0).contains(&noise.others) && (0.0..=1.0).contains(&noise.steal), "{verdict:?}");
        }
    }
}
