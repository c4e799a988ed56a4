"use strict";

// The numbers of one operating point, counted as the evaluation counts them, in float32.

function confusion(labels, probabilities, threshold) {
  const limit = Math.fround(threshold);
  const counts = { tp: 0, fn: 0, fp: 0, tn: 0 };
  probabilities.forEach((probability, i) => {
    const positive = Math.fround(probability) >= limit;
    counts[labels[i] ? (positive ? "tp" : "fn") : positive ? "fp" : "tn"] += 1;
  });
  return counts;
}

function rates({ tp, fn, fp, tn }) {
  const ratio = (part, whole) => (whole ? part / whole : null);
  const margins = Math.sqrt((tp + fp) * (tp + fn)) * Math.sqrt((tn + fp) * (tn + fn));
  return {
    accuracy: ratio(tp + tn, tp + fn + fp + tn),
    recall: ratio(tp, tp + fn),
    specificity: ratio(tn, tn + fp),
    precision: ratio(tp, tp + fp),
    npv: ratio(tn, tn + fn),
    f1: tp + fp && tp + fn ? (2 * tp) / (2 * tp + fp + fn) : null,
    mcc: ratio(tp * tn - fp * fn, margins),
  };
}

function shown(value) {
  return value === null ? "undefined" : (value + 0).toFixed(4);
}
