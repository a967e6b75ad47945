"""Many runs at once: in worker processes of this machine, or by Ray on others."""
