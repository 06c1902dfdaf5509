package translate

// CacheLen is the number of answers kept.
func CacheLen(s *Snapshot) int { return s.cache.len() }
