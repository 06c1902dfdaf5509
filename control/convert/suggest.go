package convert

import (
	"slices"
	"strings"
)

// Nearest returns the candidate that is most like name, or "" when none is near.
// Letter case and underscores count for nothing, so that load_balancer finds loadBalancer.
func Nearest(name string, candidates []string) string {
	best, bestDist := "", 1+max(1, len(name)/3)
	plain := flatten(name)
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(plain, flatten(c), bestDist); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

func flatten(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance is the Levenshtein distance, or limit when it is at least that.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 256 {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return min(row[len(b)], limit)
}

// meant is the hint for a name that is not known.
func meant(name string, known []string) string {
	if n := Nearest(name, known); n != "" {
		return "did you mean " + n + "?"
	}
	sorted := slices.Sorted(slices.Values(known))
	const show = 12
	if len(sorted) > show {
		return "known: " + strings.Join(sorted[:show], ", ") + ", …"
	}
	return "known: " + strings.Join(sorted, ", ")
}
