from tgmm_jax import command_line


def test_list_of_networks(capsys):
  assert command_line.main(["networks"]) == 0
  assert "unit" in capsys.readouterr().out
