"""`GaussianMixture`: one data set, behind the interface of scikit-learn."""
