"""The tables of the Parquet contract, with units in the columns' names.

Times are in seconds, memory in bytes, accuracies and shares are fractions of 1, layers count from 0.
"""

import polars as pl

from reproduce.store.columns import schema_of
from reproduce.store.trial_row import SCHEMA_VERSION as SCHEMA_VERSION
from reproduce.store.trial_row import TRIAL_COLUMNS as TRIAL_COLUMNS

# Every trial has these files.
TABLES = ("trials", "steps", "predictions")
# Trials whose recipe asks for evaluations during training have a file of this table, too.
EVALUATIONS = "evaluations"
# By table, the column that tells its rows of one trial apart.
ORDER_IN_TABLE = {"steps": "step", "predictions": "example_id", EVALUATIONS: "step"}
ROW_CHECKSUM = "row_checksum"
CHECKSUM_COLUMNS = {table: f"{table}_checksum" for table in ORDER_IN_TABLE}

TRIAL_SCHEMA: dict[str, pl.DataType] = schema_of(TRIAL_COLUMNS)

STEP_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "step": pl.Int32(),  # from 1
    "phase": pl.String(),  # "probe" before an adaptive switch, else "train"
    "loss": pl.Float64(),
    "learning_rate": pl.Float64(),
    "grad_norm": pl.Float64(),  # before clipping
    "seconds": pl.Float64(),
    "tokens": pl.Int64(),
    "timed": pl.Boolean(),  # whether the step counts for the trial's step time
}

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "example_id": pl.String(),
    "label": pl.Int32(),  # index into the trial's label_names
    "prediction": pl.Int32(),
    "logits": pl.List(pl.Float32()),
}

EVALUATION_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "step": pl.Int32(),  # the evaluation is after this step; the last is at the end of training
    "accuracy": pl.Float64(),
    "loss": pl.Float64(),  # mean cross-entropy of the validation examples, in nats
    "seconds": pl.Float64(),  # of training so far, evaluations left out
}

SCHEMAS = {
    **dict(zip(TABLES, (TRIAL_SCHEMA, STEP_SCHEMA, PREDICTION_SCHEMA), strict=True)),
    EVALUATIONS: EVALUATION_SCHEMA,
}

# Columns whose values distinguish two trainings of one trial to the last bit.
BIT_COLUMNS = {
    "steps": ("step", "loss", "grad_norm"),
    "predictions": ("example_id", "prediction", "logits"),
    EVALUATIONS: ("step", "accuracy", "loss"),
}
