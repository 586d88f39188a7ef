//! What a row of the table is.

use crate::corner::Corner;
use crate::figures::Figures;

/// A row of the table: to add one, write its `measure` in a file under `rows`, and name it in
/// [`crate::rows::ALL`].
pub(crate) struct Row {
    /// By which it is chosen on the command line.
    pub(crate) name: &'static str,
    /// What is measured, and against what.
    pub(crate) about: &'static str,
    /// What the figure may be at most; `None`: it is only shown.
    pub(crate) target: Option<f64>,
    /// Measures so many pairs, or so many times.
    pub(crate) measure: fn(&Corner, usize) -> Figures,
}
