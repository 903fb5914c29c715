"""A change plan for tests, as text, with parts to be replaced."""

PLAN = """\
title: Readmission, retrained on newer admissions
group: readmission
description_of_modifications:
  - id: M1
    title: Retrain on newer admissions
    changes: [training data, hyperparameters, threshold, calibration, libraries]
    protocol: [data_management, retraining, performance_evaluation, update_procedures]
    rationale: Coding and practice change.
    automatic: true
  - id: M2
    title: Drop a feature whose source went away
    changes: [features]
    protocol: [data_management, performance_evaluation]
    rationale: Sources end.
modification_protocol:
  data_management:
    minimum_rows: 1000
    minimum_events: 100
    minimum_training_rows: 1000
    newest_within_days: 30
    features:
      may_drop: [feature_19]
      must_have: [feature_0]
    practices: Admissions of this site; later ones judge.
  retraining:
    practices: The recipe, unchanged.
    hyperparameters:
      rounds: {at_least: 1, at_most: 1500}
  performance_evaluation:
    metrics:
      auroc: {at_least: 0.6, drop_at_most: 0.02}
      calibration_slope: {at_least: 0.8, at_most: 1.25}
      brier: {at_most: 0.2, rise_at_most: 0.01}
    subgroups:
      by: [sex, age_group]
      metrics:
        auroc: {at_least: 0.55}
      gap_at_most: {auroc: 0.2}
      minimum_events: 50
    practices: The test set, patients apart.
  update_procedures:
    approval: automatic
    rollout: Canary, then all.
    monitoring: Daily.
    rollback: The version before.
    communication: A note to the wards.
impact_assessment:
  with_and_without: Without it risks drift.
  each:
    M1: Newer data, the same use.
    M2: One feature less, within the bounds.
  cumulative: Bounds hold against the deployed version each time.
  risks: [A shift that no bound sees]
  mitigations: [Monitors, rollback]
"""
