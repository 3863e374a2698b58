module beamlit.com/tests/tools/pods

go 1.25.0
