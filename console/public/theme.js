// Before anything is drawn, so that a chosen theme does not flash in later.
try {
  const theme = localStorage.getItem('weft-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is off: the system's theme is used.
}
