//! Cross-field checks of a spec, pure: all problems at once, each with its field path.
