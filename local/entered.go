package local

// Entered tells from a command line whether this process is one that [Enter]
// started: init or the program inside. False in the one the user started.
func Entered(argv []string) bool {
	return len(argv) > 0 && (argv[0] == argInit || argv[0] == argInside)
}
