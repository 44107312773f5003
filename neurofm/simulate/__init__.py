"""A cohort with known truth: real files of several devices, made by a spherical forward model."""
