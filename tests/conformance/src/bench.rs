//! How long things take on this driver, measured one after the other on an otherwise idle suite.

use std::time::{Duration, Instant};

use crate::callback::Session;
use crate::case::Stop;
use crate::process;
use crate::report::Latency;
use crate::suite::Suite;

/// Enough for a tenth to have a meaning.
const ROUNDS: usize = 20;

#[derive(Debug, Default)]
struct Samples {
    create: Vec<Duration>,
    ready: Vec<Duration>,
    exec: Vec<Duration>,
    delete: Vec<Duration>,
}

/// As many rounds as go well.
pub(crate) async fn measure(suite: &Suite) -> Vec<Latency> {
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        if round(suite, &mut samples).await.is_err() {
            break;
        }
    }
    let Samples {
        create,
        ready,
        exec,
        delete,
    } = samples;
    [
        ("create", create),
        ("ready", ready),
        ("exec", exec),
        ("delete", delete),
    ]
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
    if let Some(session) = session {
        samples.exec.push(exec(suite, &session).await?);
    }
    let begun = Instant::now();
    driver.delete(&subject.id).await?;
    samples.delete.push(begun.elapsed());
    Ok(())
}

async fn exec(suite: &Suite, session: &Session) -> Result<Duration, Stop> {
    let begun = Instant::now();
    process::run(suite, session, process::program(&["true"])).await?;
    Ok(begun.elapsed())
}

fn latency(what: &'static str, mut samples: Vec<Duration>) -> Option<Latency> {
    samples.sort_unstable();
    let at = |part: f64| {
        let index = (samples.len() as f64 * part) as usize;
        samples.get(index.min(samples.len().saturating_sub(1)))
    };
    let ms = |duration: &Duration| duration.as_secs_f64() * 1000.0;
    Some(Latency {
        what,
        samples: samples.len(),
        min_ms: at(0.0).map(ms)?,
        median_ms: at(0.5).map(ms)?,
        p90_ms: at(0.9).map(ms)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_middle() {
        let samples = (1..=20).rev().map(Duration::from_millis).collect();
        let latency = latency("x", samples).unwrap();
        assert_eq!(
            (latency.min_ms, latency.median_ms, latency.p90_ms),
            (1.0, 11.0, 19.0)
        );
        assert_eq!(super::latency("x", Vec::new()), None);
    }
}
