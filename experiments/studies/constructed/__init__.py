"""How near constructed networks are to the algorithms that they carry out."""
