"""What every experiment is run by: fields, trainings, studies, pages."""
