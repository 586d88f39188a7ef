//! What the user asks for: the interfaces, as data.
