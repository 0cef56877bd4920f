"""STAGES: one function a verb; the only room where config, files, progress and MLflow meet the tools below."""
