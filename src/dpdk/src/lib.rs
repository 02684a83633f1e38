//! Safe owners for EAL, mempools and ethdev ports.
