//! The durable list of steps: intent first, then effect, played backwards at the end.
