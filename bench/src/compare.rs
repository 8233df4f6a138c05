//! Two servers in one run, in turn.

use std::io::Result;

use crate::target::Kind;

/// What one round of one server measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) cpu_nanos_per_message: f64,
    pub(crate) messages_per_second: f64,
}

/// Medians of the rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared {
    pub(crate) one: Round,
    pub(crate) other: Round,
    /// Of the CPU time, one by the other, round by round.
    pub(crate) ratio: f64,
}

pub(crate) fn compare(
    [one, other]: [Kind; 2],
    rounds: usize,
    mut measure: impl FnMut(Kind) -> Result<Round>,
) -> Result<Compared> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // A, B, B, A, ...: what drifts during a run meets both alike.
        let order = if round % 2 == 0 { [one, other] } else { [other, one] };
        let mut cost = [0.0; 2];
        for kind in order {
            let measured = measure(kind)?;
            let (index, list) = if kind == one { (0, &mut ours) } else { (1, &mut theirs) };
            cost[index] = measured.cpu_nanos_per_message;
            list.push(measured);
        }
        ratios.push(cost[0] / cost[1]);
    }
    Ok(Compared { one: Round::median(&ours), other: Round::median(&theirs), ratio: median(ratios) })
}

impl Round {
    fn median(rounds: &[Self]) -> Self {
        Self {
            cpu_nanos_per_message: median(rounds.iter().map(|round| round.cpu_nanos_per_message).collect()),
            messages_per_second: median(rounds.iter().map(|round| round.messages_per_second).collect()),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
