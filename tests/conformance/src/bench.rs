//! How long things take on this driver, measured one after the other on an otherwise idle suite.

use std::time::{Duration, Instant};

use crate::callback::Session;
use crate::case::Stop;
use crate::command;
use crate::driver::Driver;
use crate::process;
use crate::report::{Bench, Latency};
use crate::subject::Subject;
use crate::suite::Suite;

/// So many sandboxes, if they are fast.
const ROUNDS_MAX: usize = 100;
/// So many, however slow they are: a tenth of them still has a meaning.
const ROUNDS_MIN: usize = 20;
/// Between the two numbers no round begins after so much time.
const TIME: Duration = Duration::from_secs(60);
/// Commands in each sandbox.
const EXECS: usize = 10;

#[derive(Debug, Default)]
struct Samples {
    create: Vec<Duration>,
    ready: Vec<Duration>,
    exec: Vec<Duration>,
    delete: Vec<Duration>,
}

/// As many rounds as there is time for. One that fails is the last, and is told.
pub(crate) async fn measure(suite: &Suite) -> Bench {
    let mut samples = Samples::default();
    let mut trouble = None;
    let begun = Instant::now();
    // What is done once only (reading the supervisor, an image) is no part of the measurement.
    let mut failed = round(suite, &mut Samples::default()).await.err();
    for number in 0..ROUNDS_MAX {
        if failed.is_none() && number >= ROUNDS_MIN && begun.elapsed() > TIME {
            break;
        }
        failed = match failed {
            None => round(suite, &mut samples).await.err(),
            failed => failed,
        };
        if let Some(stop) = failed.take() {
            let (Stop::Failed { seen: why, .. } | Stop::Skipped(why)) = stop;
            trouble = Some(format!("after {number} rounds: {why}"));
            break;
        }
    }
    Bench {
        latencies: latencies(samples),
        trouble,
    }
}

fn latencies(samples: Samples) -> Vec<Latency> {
    let Samples {
        create,
        ready,
        exec,
        delete,
    } = samples;
    let named = [
        ("create", create),
        ("ready", ready),
        ("exec", exec),
        ("delete", delete),
    ];
    named
        .into_iter()
        .filter_map(|(what, samples)| latency(what, samples))
        .collect()
}

/// `create`: until the answer. `ready`: from the call until commands run. `exec`: one `true` over
/// the session, or by RunCommand. `delete`: until the answer.
async fn round(suite: &Suite, samples: &mut Samples) -> Result<(), Stop> {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let begun = Instant::now();
    subject.create(&driver).await?;
    samples.create.push(begun.elapsed());
    let session = match &subject.callback {
        Some(callback) => Some(callback.session().await?),
        None => {
            subject.running(&driver).await?;
            None
        }
    };
    samples.ready.push(begun.elapsed());
    for _ in 0..EXECS {
        let begun = Instant::now();
        exec(suite, &driver, &subject, session.as_ref()).await?;
        samples.exec.push(begun.elapsed());
    }
    let begun = Instant::now();
    driver.delete(&subject.id).await?;
    samples.delete.push(begun.elapsed());
    driver.hang_up().await;
    Ok(())
}

async fn exec(
    suite: &Suite,
    driver: &Driver,
    subject: &Subject,
    session: Option<&Session>,
) -> Result<(), Stop> {
    match session {
        Some(session) => {
            let output = process::run(suite, session, process::program(&["true"])).await?;
            must_succeed(output.code() == Some(0), &output.ending())
        }
        None => {
            let command = command::run(driver, command::script(&subject.id, "true")).await?;
            must_succeed(command.code() == Some(0), &command.ending())
        }
    }
}

fn must_succeed(is_success: bool, ending: &str) -> Result<(), Stop> {
    match is_success {
        true => Ok(()),
        false => Err(Stop::failed(format!("`true` ended with {ending}"))),
    }
}

fn latency(what: &'static str, mut samples: Vec<Duration>) -> Option<Latency> {
    samples.sort_unstable();
    let (first, last) = (samples.first()?, samples.last()?);
    // The smallest sample that so many hundredths of all do not exceed.
    let at = |hundredths: usize| {
        let rank = (samples.len() * hundredths).div_ceil(100).max(1);
        samples.get(rank - 1).unwrap_or(last)
    };
    let ms = |duration: &Duration| duration.as_secs_f64() * 1000.0;
    Some(Latency {
        what,
        samples: samples.len(),
        min_ms: ms(first),
        p50_ms: ms(at(50)),
        p90_ms: ms(at(90)),
        p99_ms: ms(at(99)),
        max_ms: ms(last),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_rank() {
        let samples = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = latency("x", samples).unwrap();
        let Latency {
            samples,
            min_ms,
            p50_ms,
            p90_ms,
            p99_ms,
            max_ms,
            ..
        } = latency;
        assert_eq!(samples, 200);
        assert_eq!(
            [min_ms, p50_ms, p90_ms, p99_ms, max_ms],
            [1.0, 100.0, 180.0, 198.0, 200.0]
        );
    }

    #[test]
    fn one_sample_is_all_of_them_and_none_is_nothing() {
        let one = latency("x", vec![Duration::from_millis(7)]).unwrap();
        assert_eq!((one.min_ms, one.p50_ms, one.p99_ms), (7.0, 7.0, 7.0));
        assert_eq!(latency("x", Vec::new()), None);
    }
}
