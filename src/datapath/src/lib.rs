//! The userspace datapath: PMD loop, caches, classifier, actions.
