//! Reads a plan of faults from one line of text. (docs/OPERATING.md, "Faults on purpose")

use std::str::FromStr;
use std::time::Duration;

use super::plan::{Fault, FaultPlan, KeyClass, Outage, Rule, Verb};

/// Why a line of text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is no fault: {why}")]
pub struct FaultSpecError {
    part: String,
    why: &'static str,
}

impl FromStr for FaultPlan {
    type Err = FaultSpecError;

    /// Parts are separated by commas: `seed=N`, `latency=TIME`, `jitter=TIME`, `bandwidth=BYTES`,
    /// `outage=FROM+LENGTH`, or `FAULT=CHANCE[@DELAY][:VERB][:CLASS]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut plan = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = |why| FaultSpecError { part: part.to_owned(), why };
            let (name, value) = part.split_once('=').ok_or_else(|| bad("`=` is missing"))?;
            match name {
                "seed" => plan.seed = value.parse().map_err(|_| bad("the seed is a number"))?,
                "latency" => plan.latency = time(value).map_err(bad)?,
                "jitter" => plan.jitter = time(value).map_err(bad)?,
                "bandwidth" => plan.bandwidth = Some(bytes(value).map_err(bad)?),
                "outage" => {
                    let (from, len) = value.split_once('+').ok_or_else(|| bad("it is FROM+LENGTH"))?;
                    let (from, len) = (time(from).map_err(bad)?, time(len).map_err(bad)?);
                    plan.outages.push(Outage { from, len });
                }
                name => plan.rules.push(rule(name, value).map_err(bad)?),
            }
        }
        Ok(plan)
    }
}

fn rule(name: &str, value: &str) -> Result<Rule, &'static str> {
    let fault = named(&Fault::NAMED, name).ok_or("there is no fault of this name")?;
    let mut words = value.split(':');
    let odds = words.next().unwrap_or_default();
    let (chance, delay) = match odds.split_once('@') {
        Some((chance, delay)) => (chance, Some(time(delay)?)),
        None => (odds, None),
    };
    let chance: f64 = chance.parse().map_err(|_| "its chance is a number from 0 to 1")?;
    if !(0.0..=1.0).contains(&chance) {
        return Err("its chance is a number from 0 to 1");
    }
    let mut rule = Rule::new(fault, chance);
    rule.delay = delay.unwrap_or(rule.delay);
    for word in words {
        match (named(&Verb::NAMED, word), named(&KeyClass::NAMED, word)) {
            (Some(verb), _) => rule.verb = Some(verb),
            (None, Some(class)) => rule.class = Some(class),
            (None, None) => return Err("it ends in put, get, list, delete, header, meta, segment or other"),
        }
    }
    match rule.verb {
        Some(verb) if !fault.befalls(verb) => Err("such requests do not fail in this way"),
        _ => Ok(rule),
    }
}

fn named<T: Copy>(names: &[(&str, T)], wanted: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn time(text: &str) -> Result<Duration, &'static str> {
    let (count, unit) = split_unit(text);
    let count: u64 = count.parse().map_err(|_| "a time is a number and ms, s or m")?;
    match unit {
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        "m" => Ok(Duration::from_secs(count.saturating_mul(60))),
        _ => Err("a time is a number and ms, s or m"),
    }
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    let (count, unit) = split_unit(text);
    let count: u64 = count.parse().map_err(|_| "a size is a number, and k or M if need be")?;
    let size = match unit {
        "" => count,
        "k" => count.saturating_mul(1 << 10),
        "M" => count.saturating_mul(1 << 20),
        _ => return Err("a size is a number, and k or M if need be"),
    };
    if size == 0 { Err("nothing would ever arrive") } else { Ok(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_plan_is_read() {
        let text = "seed=7, latency=20ms,jitter=5ms,bandwidth=2M,outage=10s+1m,throttle=0.25:put:segment,\
                    late=0.01@4s:put,stale-list=1:meta";
        let plan: FaultPlan = text.parse().unwrap();
        assert_eq!(
            (plan.seed, plan.latency, plan.jitter),
            (7, Duration::from_millis(20), Duration::from_millis(5))
        );
        assert_eq!(plan.bandwidth, Some(2 << 20));
        let outage = Outage { from: Duration::from_secs(10), len: Duration::from_secs(60) };
        assert_eq!(plan.outages, [outage]);
        let [throttle, late, stale] = &plan.rules[..] else { panic!("{:?}", plan.rules) };
        assert_eq!((throttle.verb, throttle.class), (Some(Verb::Put), Some(KeyClass::Segment)));
        assert_eq!((late.fault, late.chance, late.delay), (Fault::Late, 0.01, Duration::from_secs(4)));
        assert!(stale.covers(Verb::List, KeyClass::Meta) && !stale.covers(Verb::Get, KeyClass::Meta));
    }

    #[test]
    fn every_fault_is_known_by_its_name() {
        for (name, fault) in Fault::NAMED {
            let plan: FaultPlan = format!("{name}=0.5").parse().unwrap();
            assert_eq!(plan.rules, [Rule::new(fault, 0.5)]);
        }
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in [
            "seed",
            "seed=x",
            "latency=5",
            "outage=5s",
            "explode=1",
            "reset=2",
            "reset=1:sometimes",
            "late=1:get",
            "bandwidth=0",
        ] {
            assert!(text.parse::<FaultPlan>().is_err(), "{text}");
        }
    }
}
