"""What only the notebooks use: sizes (`scale`), exercise checks (`checks`), pictures and tables (`show`)."""
