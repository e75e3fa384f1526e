//! The walk: one table's chain at one hook, rule by rule through the classifier.
