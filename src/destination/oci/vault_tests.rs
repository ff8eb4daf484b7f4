//! Every form of private key, and what is said of the wrong ones.
