//! The command line.

pub(crate) const USAGE: &str = "\
Usage: cargo xtask bench [--pairs N] [--list] [ROW...]
  --pairs N  measure so many pairs for each row [default: 30]
  --list     only name the rows
  ROW        only rows with one of these in their name [default: all]
The exit status is 1 if a target isn't met.";

/// Fewer say too little on a shared machine.
const PAIRS: usize = 30;

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) pairs: usize,
    pub(crate) list: bool,
    rows: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            pairs: PAIRS,
            list: false,
            rows: Vec::new(),
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--list" => arguments.list = true,
                "--pairs" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    arguments.pairs = number
                        .filter(|&pairs| pairs > 0)
                        .ok_or("--pairs takes a number from 1")?;
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                _ => arguments.rows.push(word),
            }
        }
        Ok(arguments)
    }

    pub(crate) fn includes(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| name.contains(part.as_str()))
    }
}
