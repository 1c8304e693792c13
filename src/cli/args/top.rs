//! Options of `top`.

use std::time::Duration;

/// Options of `top`. On a terminal it is a live view, of which `h` shows the keys; with --count, with
/// --format json, or where standard output is no terminal, it prints what each interval brought, as text
/// or as one JSON object a line.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// Seconds from one look to the next, from 0.1 to 60.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// End after so many intervals.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

fn interval(word: &str) -> Result<Duration, String> {
    let seconds: f64 = word.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not between 0.1 and 60".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_between_a_tenth_of_a_second_and_a_minute() {
        assert_eq!(interval("0.1"), Ok(Duration::from_millis(100)));
        assert_eq!(interval("60"), Ok(Duration::from_secs(60)));
        for word in ["", "x", "0", "0.09", "60.1", "-1", "nan", "inf"] {
            assert!(interval(word).is_err(), "{word}");
        }
    }
}
