//! Disks that are full, cannot be written, or are of another kind than most.

mod real;
